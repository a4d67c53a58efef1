// Solution 9: a residual block and an epoch of training (docs/course/09_resnet.md).
#include "course/course.h"
#include "data/loader.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace mtcki::course {

namespace {

class Block : public nn::Module {
 public:
  Block(int64_t in, int64_t out, int64_t stride, nn::Init& init)
      : conv1_(add<nn::Conv2d>("conv1", in, out, 3, Conv2dOptions(stride, 1), false, init)),
        bn1_(add<nn::BatchNorm2d>("bn1", out)),
        conv2_(add<nn::Conv2d>("conv2", out, out, 3, Conv2dOptions(1, 1), false, init)),
        bn2_(add<nn::BatchNorm2d>("bn2", out)) {
    if (stride == 1 && in == out) return;  // the shortcut is x itself
    projection_ = &add<nn::Sequential>("shortcut");
    projection_->add<nn::Conv2d>("0", in, out, 1, Conv2dOptions(stride, 0), false, init);
    projection_->add<nn::BatchNorm2d>("1", out);
  }

 protected:
  // relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))
  Variable forward(const Variable& x) override {
    const Variable h = relu(bn1_(conv1_(x)));
    const Variable shortcut = projection_ != nullptr ? (*projection_)(x) : x;
    return relu(bn2_(conv2_(h)) + shortcut);
  }

 private:
  nn::Conv2d& conv1_;
  nn::BatchNorm2d& bn1_;
  nn::Conv2d& conv2_;
  nn::BatchNorm2d& bn2_;
  nn::Sequential* projection_ = nullptr;
};

}  // namespace

std::unique_ptr<nn::Module> make_block(int64_t in, int64_t out, int64_t stride, nn::Init& init) {
  return std::make_unique<Block>(in, out, stride, init);
}

double train_epoch(nn::Module& net, data::Loader& loader, int64_t epoch,
                   optim::Optimizer& optimizer, const optim::Schedule& schedule, int64_t* step) {
  net.train();
  double sum = 0;
  for (const data::Batch& batch : loader.epoch(epoch)) {
    optimizer.set_lr(schedule.at((*step)++));
    optimizer.zero_grad();
    const Variable loss = cross_entropy(net(batch.images), batch.labels);
    loss.backward();
    optimizer.step();
    sum += loss.item();
  }
  return sum / static_cast<double>(loader.batches_per_epoch());
}

}  // namespace mtcki::course

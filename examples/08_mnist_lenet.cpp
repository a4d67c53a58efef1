// A data set, a loader, a convolutional network and its training loop. The images are procedural
// (synth10-gray: ten classes of shapes, 28x28), so that nothing has to be downloaded; "mnist" or
// "fashion-mnist" in the first line of main trains on those instead.
// Expect: learned: yes
#include <cstdio>

#include "autograd/functions.h"
#include "data/loader.h"
#include "nn/layers.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/reduce.h"

using namespace mtcki;

// LeNet's shape with 3x3 kernels: two convolutions with pooling, two linear layers.
class LeNet : public nn::Module {
 public:
  explicit LeNet(nn::Init& init)
      : conv1_(add<nn::Conv2d>("conv1", 1, 8, 3, Conv2dOptions(1, 1), true, init)),
        conv2_(add<nn::Conv2d>("conv2", 8, 16, 3, Conv2dOptions(1, 1), true, init)),
        fc1_(add<nn::Linear>("fc1", 16 * 7 * 7, 64, true, init)),
        fc2_(add<nn::Linear>("fc2", 64, 10, true, init)) {}

 protected:
  Variable forward(const Variable& x) override {
    const Variable a = max_pool2d(relu(conv1_(x)), Pool2dOptions(2));
    const Variable b = max_pool2d(relu(conv2_(a)), Pool2dOptions(2));
    return fc2_(relu(fc1_(flatten(b))));
  }

 private:
  nn::Conv2d &conv1_, &conv2_;
  nn::Linear &fc1_, &fc2_;
};

int main() {
  const std::string name = "synth10-gray";
  const data::ImageSet train = data::load_dataset({name, "", "train", 4000, 0});
  const data::ImageSet test = data::load_dataset({name, "", "test", 1000, 0});
  data::LoaderOptions options;
  options.batch_size = 64;
  options.normalization = train.normalization;
  data::Loader loader(train, options);
  options.shuffle = options.drop_last = false;
  data::Loader test_loader(test, options);

  nn::Init init(0);
  LeNet net(init);
  const auto optimizer = optim::make_sgd(net, {.lr = 0.05, .momentum = 0.9});
  const int64_t epochs = 4;
  optim::Schedule schedule;
  schedule.base_lr = 0.05;
  schedule.total_steps = epochs * loader.batches_per_epoch();

  double top1 = 0;
  for (int64_t epoch = 0, step = 0; epoch < epochs; ++epoch) {
    net.train();
    double loss_sum = 0;
    for (const data::Batch& batch : loader.epoch(epoch)) {
      optimizer->set_lr(schedule.at(step++));
      optimizer->zero_grad();
      const Variable loss = cross_entropy(net(batch.images), batch.labels);
      loss.backward();
      optimizer->step();
      loss_sum += loss.item();
    }
    net.eval();
    const NoGradScope no_grad;
    int64_t correct = 0;
    for (const data::Batch& batch : test_loader.epoch(0))
      correct += count_topk_correct(net(batch.images).data(), batch.labels, 1);
    top1 = 100.0 * static_cast<double>(correct) / static_cast<double>(test.size());
    std::printf("epoch %lld  loss %.3f  test accuracy %.1f %%\n", static_cast<long long>(epoch + 1),
                loss_sum / static_cast<double>(loader.batches_per_epoch()), top1);
  }
  std::printf("learned: %s\n", top1 > 90.0 ? "yes" : "no");
}

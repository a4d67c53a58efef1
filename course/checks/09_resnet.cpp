// Judges exercise 9: the block alone, then a network of four blocks on Fashion-MNIST: on 3,000 of
// its images, or on all 60,000 with --full.
#include <cstdio>

#include "course/checks/judge.h"
#include "data/loader.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/reduce.h"

namespace mtcki::course {

namespace {

class SmallResNet : public nn::Module {
 public:
  SmallResNet(int64_t width, nn::Init& init)
      : body_(add<nn::Sequential>("body")), fc_(add<nn::Linear>("fc", 4 * width, 10, true, init)) {
    body_.add<nn::Conv2d>("conv", 1, width, 3, Conv2dOptions(2, 1), false, init);
    body_.add<nn::BatchNorm2d>("bn", width);
    body_.add("1", make_block(width, width, 1, init));
    body_.add("2", make_block(width, 2 * width, 2, init));
    body_.add("3", make_block(2 * width, 4 * width, 2, init));
    body_.add("4", make_block(4 * width, 4 * width, 1, init));
  }

 protected:
  Variable forward(const Variable& x) override { return fc_(global_avg_pool(body_(x))); }

 private:
  nn::Sequential& body_;
  nn::Linear& fc_;
};

double accuracy(nn::Module& net, const data::ImageSet& set) {
  data::LoaderOptions options;
  options.batch_size = 500;
  options.shuffle = options.drop_last = false;
  options.normalization = set.normalization;
  data::Loader loader(set, options);
  net.eval();
  const NoGradScope no_grad;
  int64_t right = 0;
  for (const data::Batch& batch : loader.epoch(0))
    right += count_topk_correct(net(batch.images).data(), batch.labels, 1);
  return 100.0 * static_cast<double>(right) / static_cast<double>(set.size());
}

void block(Judge& judge) {
  nn::Init init(9);
  const auto same = make_block(8, 8, 1, init), down = make_block(8, 16, 2, init);
  const Variable x(randn({2, 8, 6, 6}, Rng{9, 1, 0}));
  judge.check("a block with stride 2 halves height and width",
              (*down)(x).shape() == Shape{2, 16, 3, 3});
  // With its last batch norm at zero the branch is silent: what is left is relu(x).
  for (const auto& [name, parameter] : same->named_parameters())
    if (name == "bn2.weight") parameter->set_data(Tensor::zeros({8}));
  judge.close("with bn2.weight = 0 a block is relu(x)", (*same)(x).data().plain(),
              relu(x).data().plain());
}

void check(Judge& judge) {
  block(judge);
  const bool full = judge.full();
  const data::ImageSet train =
      data::load_dataset({"fashion-mnist", "", "train", full ? 0 : 3000, 0});
  const data::ImageSet test = data::load_dataset({"fashion-mnist", "", "test", full ? 0 : 1000, 0});
  data::LoaderOptions options;
  options.batch_size = 50;
  options.normalization = train.normalization;
  if (full) {
    options.batch_size = 128;
    options.pad = 2;
    options.flip = true;
  }
  data::Loader loader(train, options);
  nn::Init init(1);
  SmallResNet net(full ? 16 : 8, init);
  const int64_t epochs = full ? 8 : 3;
  optim::Schedule schedule;
  schedule.base_lr = 0.1;
  schedule.total_steps = epochs * loader.batches_per_epoch();
  const auto sgd =
      optim::make_sgd(net, {.lr = 0.1, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true});
  int64_t step = 0;
  double first = 0, last = 0, top1 = 0;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    last = train_epoch(net, loader, epoch, *sgd, schedule, &step);
    if (epoch == 0) first = last;
    top1 = accuracy(net, test);
    std::printf("       epoch %d: loss %.3f, %.2f %% of the test images\n",
                static_cast<int>(epoch + 1), last, top1);
    std::fflush(stdout);
  }
  judge.equal("steps counted", static_cast<double>(step),
              static_cast<double>(schedule.total_steps));
  judge.check("the loss fell", last < 0.8 * first);
  const double wanted = full ? 91 : 70;
  judge.check("test accuracy of " + std::to_string(static_cast<int>(wanted)) + " % or more",
              top1 >= wanted);
}

const Chapter chapter(9, "A ResNet on Fashion-MNIST", check);

}  // namespace

}  // namespace mtcki::course

// Classifier::features and taps: inputs of modules during a pass, and passes that end early.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/models/model.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::nn::taps_test {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::unique_ptr<Classifier> classifier(const std::string& name) {
  Init init(1);
  return make_classifier({name, 3, 32, 10}, init);
}

TEST(Taps, HaveTheirGraphAndLeaveNothingBehind) {
  const auto net = classifier("resnet8");
  net->eval();
  net->set_requires_grad(false);
  const Variable x(randn({2, 3, 32, 32}, Rng{2}), true);
  const LeakCheckScope leaks;
  {
    const auto out = net->features(x, net->batch_norms());
    ASSERT_EQ(out.taps.size(), 9u);
    EXPECT_TRUE(identical(out.logits.data(), (*net)(x).data()));
    sum(out.taps[8]).backward();
  }
  EXPECT_TRUE(x.grad().defined());
  EXPECT_LE(leaks.alive(), 1);  // the collector of x
  for (auto& [path, module] : net->named_modules()) EXPECT_FALSE(module->has_hooks()) << path;
}

// Neither the layers behind the last tap run, nor anything that they would have been given to.
TEST(Taps, AloneEndThePassAtTheLast) {
  const Variable x(randn({2, 3, 32, 32}, Rng{2}));
  for (const char* name : {"resnet8", "resnet8_a", "wrn10_2", "vgg8_w0.25"}) {
    const auto net = classifier(name);
    net->eval();
    const NoGradScope no_grad;
    std::vector<Module*> wanted;
    for (BatchNorm2d* bn : net->batch_norms()) wanted.push_back(bn);
    const auto whole = net->features(x, wanted);
    // Each of them as the last one, also inside a block and in its shortcut.
    for (size_t n = 1; n <= wanted.size(); ++n) {
      int run = 0;
      std::vector<HookHandle> counters;
      for (BatchNorm2d* bn : net->batch_norms())
        counters.push_back(
            bn->add_after_hook([&](const Module&, const Variable&, const Variable&) { ++run; }));
      const auto taps = net->taps(x, {wanted.begin(), wanted.begin() + static_cast<int64_t>(n)});
      ASSERT_EQ(taps.size(), n);
      EXPECT_TRUE(identical(taps[n - 1].data(), whole.taps[n - 1].data())) << name << " " << n;
      EXPECT_LT(run, static_cast<int>(wanted.size())) << name << " " << n;
    }
    EXPECT_TRUE(net->taps(x, {}).empty());
  }
}

TEST(Taps, ThatDoNotRunAreAnError) {
  const auto net = classifier("resnet8"), other = classifier("resnet8");
  EXPECT_THAT(
      [&] {
        net->features(Tensor::zeros({2, 3, 32, 32}), other->batch_norms());
      },
      ThrowsMessage<Error>(HasSubstr("9 of 9 modules did not run in a pass of ResNet")));
  EXPECT_THAT([&] { (*net)(Variable()); },
              ThrowsMessage<Error>(HasSubstr("ResNet: the input is undefined")));
}

}  // namespace
}  // namespace mtcki::nn::taps_test

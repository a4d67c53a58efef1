// What a chain runs as one op, and that it computes what its links compute one after the other.
#include "nn/chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "nn/init.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"

namespace mtcki::nn {
namespace {

using ::testing::ElementsAre;
using Ops = std::vector<std::string>;

constexpr int64_t kWidth = 16;  // of which the Winograd kernels take a batch norm in

class Layers : public Module {
 public:
  Conv2d& conv(const char* name, bool bias = false) {
    return add(name, std::make_unique<Conv2d>(kWidth, kWidth, 3, Conv2dOptions(1, 1), bias, init_));
  }
  BatchNorm2d& norm(const char* name) {
    BatchNorm2d& bn = add(name, std::make_unique<BatchNorm2d>(kWidth));
    uniform_(bn.weight, 0.5, 1.5, init_.next());
    uniform_(bn.bias, -0.5, 0.5, init_.next());
    bn.running_mean.copy_(rand({kWidth}, init_.next()));
    return bn;
  }

 protected:
  Variable forward(const Variable& x) override { return x; }

 private:
  Init init_{1};
};

// The chains of a pre-activation and of a post-activation block, with their parts.
struct Blocks : Layers {
  Conv2d &conv1 = conv("conv1"), &conv2 = conv("conv2", true), &shortcut = conv("shortcut");
  BatchNorm2d &bn1 = norm("bn1"), &bn2 = norm("bn2");
  Variable x{
      randn({8, kWidth, 16, 16}, Rng{2}).to(preferred_layout(Device::cpu(), DType::f32, kWidth))};

  Variable wide(Conv2d* project = nullptr) {
    Chain h = Chain(x) | bn1 | relu | conv1 | bn2 | relu | conv2;
    return std::move(h) + (Chain(x) | project);
  }
  Variable basic(Conv2d* project = nullptr) {
    Chain h = Chain(x) | conv1 | bn1 | relu | conv2 | bn2;
    return (std::move(h) + (Chain(x) | project)) | relu;
  }
  Variable wide_by_hand() { return conv2(relu(bn2(conv1(relu(bn1(x)))))) + x; }
  Variable basic_by_hand() { return relu(bn2(conv2(relu(bn1(conv1(x))))) + x); }
};

// Names of the outermost ops of the forward, with the layer at which each runs.
Ops ops_of(const std::function<Variable()>& run) {
  profiler::start();
  run();
  profiler::stop();
  Ops out;
  for (const profiler::Event& e : profiler::events())
    if (e.parent < 0) out.push_back(e.op + (e.module.empty() ? "" : " " + e.module));
  return out;
}

TEST(Chain, ComputesWhatItsLinksCompute) {
  for (const bool train : {true, false})
    for (const bool grads : {true, false}) {
      Blocks b;
      b.train(train);
      std::unique_ptr<NoGradScope> off;
      if (!grads) off = std::make_unique<NoGradScope>();
      EXPECT_TRUE(allclose(b.wide().data(), b.wide_by_hand().data(), 1e-5, 1e-5));
      EXPECT_TRUE(allclose(b.basic().data(), b.basic_by_hand().data(), 1e-5, 1e-5));
    }
}

TEST(Chain, GivesTheGradientsOfItsLinks) {
  const auto gradients = [](const std::function<Variable(Blocks&)>& form) {
    Blocks b;
    b.x.set_requires_grad(true);
    sum(mul(form(b), randn({8, kWidth, 16, 16}, Rng{3}))).backward();
    std::vector<Tensor> out{b.x.grad()};
    for (const Variable& p : b.parameters())
      if (p.grad().defined()) out.push_back(p.grad());
    return out;
  };
  const auto check = [&](const auto& chain, const auto& by_hand) {
    const auto a = gradients(chain), b = gradients(by_hand);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(allclose(a[i], b[i], 1e-4, 1e-4)) << i;
  };
  check([](Blocks& b) { return b.wide(); }, [](Blocks& b) { return b.wide_by_hand(); });
  check([](Blocks& b) { return b.basic(); }, [](Blocks& b) { return b.basic_by_hand(); });
}

// The rules, one by one.
TEST(ChainFusion, EvaluationWithoutGradientsTakesEverythingIntoTheConvolutions) {
  Blocks b;
  b.eval();
  const NoGradScope off;
  EXPECT_THAT(ops_of([&] { return b.wide(); }), ElementsAre("conv2d conv1", "conv2d conv2"));
  EXPECT_THAT(ops_of([&] { return b.basic(); }), ElementsAre("conv2d conv1", "conv2d conv2"));
}

TEST(ChainFusion, EvaluationWithGradientsTakesTheSumInOnly) {
  Blocks b;
  b.eval();
  EXPECT_THAT(ops_of([&] { return b.wide(); }), ElementsAre("batch_norm_eval bn1", "conv2d conv1",
                                                            "batch_norm_eval bn2", "conv2d conv2"));
  EXPECT_THAT(
      ops_of([&] { return b.basic(); }),
      ElementsAre("conv2d conv1", "batch_norm_eval bn1", "conv2d conv2", "batch_norm_eval bn2"));
}

// Frozen layers record nothing for images without a gradient, but do for those with one.
TEST(ChainFusion, IsDecidedByTheGradientsThatAreWanted) {
  Blocks b;
  b.eval();
  b.set_requires_grad(false);
  EXPECT_EQ(ops_of([&] { return b.wide(); }).size(), 2u);
  b.x.set_requires_grad(true);
  EXPECT_EQ(ops_of([&] { return b.wide(); }).size(), 4u);
}

TEST(ChainFusion, TrainingTakesTheNormInThatStandsBefore) {
  Blocks b;
  if (!conv2d_normalises(b.x.data(), b.conv1.weight.shape(), Conv2dOptions(1, 1)))
    GTEST_SKIP() << "no Winograd kernels";
  const Ops wide = ops_of([&] { return b.wide(); });
  for (const std::string& op : wide) EXPECT_NE(op.substr(0, 16), "batch_norm_train") << op;
  const Ops basic = ops_of([&] { return b.basic(); });
  EXPECT_EQ(std::count(basic.begin(), basic.end(), "batch_norm_train bn1"), 0);
  EXPECT_EQ(std::count(basic.begin(), basic.end(), "batch_norm_train bn2"), 1);
  EXPECT_EQ(b.bn1.num_batches_tracked.item(), 2.0);
  EXPECT_EQ(b.bn2.num_batches_tracked.item(), 2.0);
}

// As MobileNetV2's, whose depthwise convolutions take in what the part before them ends with.
TEST(ChainFusion, LinksOfASequentialStandInItsPlace) {
  struct Net : Layers {
    Sequential& part = add<Sequential>("part");
    Init init{3};
    Conv2d& depthwise = add<Conv2d>("depthwise", kWidth, kWidth, 3, grouped(), false, init);
    static Conv2dOptions grouped() {
      Conv2dOptions o(1, 1);
      o.groups = kWidth;
      return o;
    }
    Net() {
      part.add<Conv2d>("0", kWidth, kWidth, 1, Conv2dOptions(), false, init);
      uniform_(part.add<BatchNorm2d>("1", kWidth).weight, 2.0, 8.0, init.next());
      part.then(relu6);
    }
    Variable forward(const Variable& x) override { return Chain(x) | part | depthwise; }
  } net;
  const auto check = [&](Tensor* out, Tensor* gradient, const char* norm) {
    Variable x(randn({4, kWidth, 8, 8}, Rng{2})), y;
    x.set_requires_grad(true);
    EXPECT_THAT(ops_of([&] { return y = net(x); }),
                ElementsAre("conv2d part.0", norm, "conv2d depthwise"));
    sum(mul(y, randn({4, kWidth, 8, 8}, Rng{4}))).backward();
    *out = y.data(), *gradient = x.grad();
  };
  Tensor fused, alone, fused_gradient, gradient;
  check(&fused, &fused_gradient, "batch_norm_statistics depthwise");
  const HookHandle hook = net.part.add_before_hook([](const Module&, const Variable&) {});
  check(&alone, &gradient, "batch_norm_train part.1");
  EXPECT_TRUE(identical(fused, alone));
  EXPECT_TRUE(identical(fused_gradient, gradient));
}

TEST(ChainFusion, LayersWithHooksRunByThemselves) {
  for (const bool train : {true, false}) {
    Blocks b;
    b.train(train);
    const NoGradScope off;
    int seen = 0;
    std::vector<HookHandle> hooks;
    for (Module* m : std::vector<Module*>{&b.conv1, &b.conv2, &b.bn1, &b.bn2})
      hooks.push_back(m->add_before_hook([&](const Module&, const Variable&) { ++seen; }));
    const char* norm = train ? "batch_norm_train" : "batch_norm_eval";
    EXPECT_THAT(ops_of([&] { return b.basic(); }),
                ElementsAre("conv2d conv1", std::string(norm) + " bn1", "conv2d conv2",
                            std::string(norm) + " bn2"));
    EXPECT_THAT(ops_of([&] { return b.wide(); }),
                ElementsAre(std::string(norm) + " bn1", "conv2d conv1", std::string(norm) + " bn2",
                            "conv2d conv2", "add"));
    EXPECT_EQ(seen, 8);
  }
}

TEST(ChainFusion, ANormThatKeepsItsMomentsReadsItsInput) {
  Blocks b;
  b.eval();
  const NoGradScope off;
  b.bn1.keep_moments(true);
  EXPECT_THAT(ops_of([&] { return b.basic(); }),
              ElementsAre("conv2d conv1", "batch_norm_eval bn1", "conv2d conv2"));
  EXPECT_TRUE(b.bn1.take_moments().defined());
}

// Before the last convolution: the sum may then go over the memory of what the shortcut made.
TEST(ChainFusion, TheShortcutRunsBeforeTheLastConvolution) {
  Blocks b;
  b.eval();
  const NoGradScope off;
  EXPECT_THAT(ops_of([&] { return b.wide(&b.shortcut); }),
              ElementsAre("conv2d conv1", "conv2d shortcut", "conv2d conv2"));
  EXPECT_THAT(ops_of([&] { return b.basic(&b.shortcut); }),
              ElementsAre("conv2d conv1", "conv2d shortcut", "conv2d conv2"));
}

TEST(Chain, JoinsTheChannelsOfTwoChains) {
  Blocks b;
  b.eval();
  const NoGradScope off;
  const Variable y = cat(Chain(b.x) | Channels{2, 6}, Chain(b.x) | b.conv1 | b.bn1 | relu6) |
                     ChannelShuffle{2} | AvgPool2d{Pool2dOptions(2)};
  const Variable by_hand =
      avg_pool2d(channel_shuffle(cat({narrow(b.x, 1, 2, 6), relu6(b.bn1(b.conv1(b.x)))}, 1), 2),
                 Pool2dOptions(2));
  EXPECT_EQ(y.shape(), (Shape{8, 4 + kWidth, 8, 8}));
  EXPECT_TRUE(allclose(y.data(), by_hand.data(), 1e-5, 1e-5));
  // A hook that ends the pass in the second chain ends it.
  const HookHandle stop =
      b.conv1.add_stop_hook([](const Module&, const Variable&) { return true; });
  const Variable ended = cat(Chain(b.x), Chain(b.x) | b.conv1) | b.conv2;
  EXPECT_FALSE(ended.defined());
}

TEST(Chain, GoesOnFromAValueThatWasAskedFor) {
  Blocks b;
  b.eval();
  const NoGradScope off;
  Chain a = Chain(b.x) | b.bn1 | relu;
  const Variable value = a.value();
  EXPECT_TRUE(identical(value.data(), relu(b.bn1(b.x)).data()));
  const Variable y = std::move(a) | b.conv1;
  EXPECT_TRUE(identical(y.data(), b.conv1(value).data()));
}

TEST(Trace, ShowsEveryLinkByItself) {
  struct Net : Blocks {
    Variable forward(const Variable& in) override {
      x = in;
      return basic(&shortcut);
    }
  } net;
  const Variable x(randn({2, kWidth, 16, 16}, Rng{2}));
  const auto steps = trace(net, x);
  EXPECT_TRUE(net.training());
  EXPECT_EQ(net.bn1.num_batches_tracked.item(), 0.0);
  ASSERT_EQ(steps.size(), 8u);  // conv bn relu conv bn, shortcut, sum, relu
  EXPECT_EQ(std::get<Conv2d*>(steps[0].link.what), &net.conv1);
  EXPECT_EQ(steps[0].input.impl(), x.impl());
  EXPECT_EQ(std::get<Conv2d*>(steps[5].link.what), &net.shortcut);
  EXPECT_EQ(steps[5].input.impl(), x.impl());
  EXPECT_EQ(steps[6].input.impl(), steps[4].output.impl());
  EXPECT_EQ(std::get<Join>(steps[6].link.what).shortcut->value().impl(), steps[5].output.impl());
}

}  // namespace
}  // namespace mtcki::nn

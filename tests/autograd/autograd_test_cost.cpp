// What a graph costs: convolutions run, bytes kept, in-place sums, memory during backward.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "autograd/functions.h"
#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"
#include "tensor/rng.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kC = kChannelBlock;

Tensor random(const Shape& shape, uint64_t step) {
  return randn(shape, Rng{3, rng_stream("cost"), step});
}

// Events of f.
template <class F>
std::vector<profiler::Event> profile(const F& f) {
  profiler::start();
  f();
  profiler::stop();
  return profiler::events();
}
int64_t count(const std::vector<profiler::Event>& events, const std::string& op) {
  return std::count_if(events.begin(), events.end(), [&](const auto& e) { return e.op == op; });
}

// conv - BN (eval) - ReLU, twice, with a residual: a frozen teacher in miniature.
struct Net {
  Variable w1, w2, gamma, beta;
  Tensor mean = Tensor::zeros({kC}), var = Tensor::full({kC}, 1.0);

  explicit Net(bool trainable)
      : w1(random({kC, kC, 3, 3}, 1), trainable),
        w2(random({kC, kC, 3, 3}, 2), trainable),
        gamma(Tensor::full({kC}, 1.0), trainable),
        beta(Tensor::zeros({kC}), trainable) {}

  Variable bn(const Variable& x, Activation act, const Variable& residual = {}) const {
    return batch_norm_eval(x, gamma, beta, mean, var, 1e-5, act, residual);
  }
  Variable operator()(const Variable& x) const {
    const Conv2dOptions o(1, 1);
    const Variable h = bn(conv2d(x, w1, {}, o), Activation::relu());
    return sum(bn(conv2d(h, w2, {}, o), Activation::relu(), x));
  }
};

size_t bytes(const Tensor& t) { return t.nbytes(); }

TEST(Cost, FrozenWeightsRunNoWeightGradient) {
  const Variable x(random({2, kC, 6, 6}, 3).to(Layout::blocked), true);
  const Net frozen(false);
  const auto events = profile([&] { frozen(x).backward(); });
  EXPECT_EQ(count(events, "conv2d"), 2);
  EXPECT_EQ(count(events, "conv2d_grad_input"), 2);
  EXPECT_EQ(count(events, "conv2d_grad_weight"), 0);
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(frozen.w1.grad().defined());

  const Net trained(true);
  const Variable constant(x.data());
  const auto training = profile([&] { trained(constant).backward(); });
  EXPECT_EQ(count(training, "conv2d_grad_input"), 1) << "none for the images";
  EXPECT_EQ(count(training, "conv2d_grad_weight"), 2);
  EXPECT_FALSE(constant.grad().defined());

  const auto evaluation = profile([&] { frozen(constant); });
  EXPECT_EQ(count(evaluation, "conv2d"), 2);
  EXPECT_EQ(saved_bytes(frozen(constant)), 0u);
}

TEST(Cost, FrozenConvolutionKeepsNoActivation) {
  const Conv2dOptions o(1, 1);
  const Variable x(random({4, kC, 8, 8}, 3).to(Layout::blocked), true);
  const Variable frozen(random({kC, kC, 3, 3}, 1));
  EXPECT_EQ(saved_bytes(conv2d(x, frozen, {}, o)), bytes(frozen.data()));
  const Variable w(frozen.data(), true), images(x.data());
  EXPECT_EQ(saved_bytes(conv2d(images, w, {}, o)), bytes(x.data()));
  EXPECT_EQ(saved_bytes(conv2d(x, w, {}, o)), bytes(x.data()) + bytes(w.data()));
  const Variable bias(Tensor::zeros({kC}), true);
  EXPECT_EQ(saved_bytes(conv2d(images, frozen, bias, o)), 0u);
  // Transposed convolutions and linear layers follow the same rule.
  const Variable wt(random({kC, kC, 4, 4}, 4));
  EXPECT_EQ(saved_bytes(conv_transpose2d(x, wt, {}, ConvTranspose2dOptions(2, 1))),
            bytes(wt.data()));
  const Variable flat(random({4, 10}, 5), true), wl(random({3, 10}, 6));
  EXPECT_EQ(saved_bytes(linear(flat, wl, {})), bytes(wl.data()));
}

TEST(Cost, RecomputedOutputIsNotKeptAndMadeOnce) {
  const Variable x(random({4, kC, 8, 8}, 3).to(Layout::blocked), true);
  Variable w(random({kC, kC, 3, 3}, 1), true);
  const Variable one(Tensor::full({kC}, 1.0), true), zero(Tensor::zeros({kC}), true);
  const Conv2dOptions o(1, 1);
  const auto two_convolutions = [&](bool recompute) {
    const Variable a =
        batch_norm_train(x, one, zero, {}, {}, 0.1, 1e-5, Activation::relu(), {}, recompute);
    return sum(add(conv2d(a, w, {}, o), conv2d(a, w, {}, o)));
  };
  EXPECT_EQ(saved_bytes(two_convolutions(false)) - saved_bytes(two_convolutions(true)),
            bytes(x.data()));
  const auto events = profile([&] { two_convolutions(true).backward(); });
  EXPECT_EQ(count(events, "batch_norm_apply"), 1);
  // A graph that is kept gives the same gradients twice.
  const Variable loss = two_convolutions(true);
  w.zero_grad();
  loss.backward({}, true);
  const Tensor first = w.grad();
  w.zero_grad();
  loss.backward();
  EXPECT_EQ(first.to_vector<float>(), w.grad().to_vector<float>());
  // What was written to in place is saved as it is.
  const Variable a =
      batch_norm_train(x, one, zero, {}, {}, 0.1, 1e-5, Activation::relu(), {}, true);
  mul_(a.data(), 2.0);
  w.zero_grad();
  sum(conv2d(a, w, {}, o)).backward();
  const Variable constant(a.data().clone()), v(w.data(), true);
  sum(conv2d(constant, v, {}, o)).backward();
  EXPECT_EQ(w.grad().to_vector<float>(), v.grad().to_vector<float>());
}

TEST(Cost, FrozenBatchNormKeepsOnlyWhatTheMaskNeeds) {
  const Net net(false);
  const Variable x(random({4, kC, 8, 8}, 3), true), residual(random({4, kC, 8, 8}, 4), true);
  const size_t channels = 4 * bytes(net.mean), activation = bytes(x.data());
  EXPECT_LE(saved_bytes(net.bn(x, {})), channels);
  EXPECT_LE(saved_bytes(net.bn(x, {}, residual)), channels);
  EXPECT_LE(saved_bytes(net.bn(x, Activation::relu())), activation + channels);
  const Variable y = net.bn(x, Activation::relu(), residual);
  EXPECT_LE(saved_bytes(y), activation + channels);
  // The statistics loss shares the input that the mask is recomputed from.
  const Variable h = x * 1.0;
  const Variable both = sum(net.bn(h, Activation::relu())) + bn_statistics(h, net.mean, net.var);
  EXPECT_LE(saved_bytes(both), activation + 2 * channels);
  // Trainable: the input for the weight's gradient, and nothing of its size beside it.
  const Net trained(true);
  EXPECT_LE(saved_bytes(trained.bn(x, Activation::relu())), activation + channels);
}

TEST(Cost, StatisticsOfSeveralLayersGiveTheGradientsOfTheirSum) {
  const Net net(false);
  const auto gradient = [&](bool together) {
    const Variable x(random({4, kC, 8, 8}, 3), true);
    const Variable a = x * 1.0, b = net.bn(a, Activation::relu());
    const Variable loss =
        together ? bn_statistics(
                       {{a, net.mean, net.var, {}, {}, {}}, {b, net.mean, net.var, {}, {}, {}}})
                 : bn_statistics(a, net.mean, net.var) + bn_statistics(b, net.mean, net.var);
    (loss * 2.0).backward();
    return x.grad();
  };
  EXPECT_TRUE(allclose(gradient(true), gradient(false), 1e-6, 1e-9));
}

TEST(Cost, FrozenNetworkKeepsLessThanATrainedOne) {
  const Variable x(random({4, kC, 8, 8}, 3).to(Layout::blocked), true);
  const Net frozen(false), trained(true);
  const size_t activation = bytes(x.data()), weights = 2 * bytes(frozen.w1.data());
  // Frozen: conv1's output (mask of the first ReLU) and the result (mask of the second).
  const Variable y = frozen(x), z = trained(x);
  EXPECT_LE(saved_bytes(y), 2 * activation + weights + 8 * bytes(frozen.mean));
  // Trained: x, conv1's output, h, conv2's output, the result.
  EXPECT_GE(saved_bytes(z), 5 * activation + weights);
}

TEST(Cost, SumsOfGradientsReuseTheirMemory) {
  const Variable x(random({64, 64}, 1), true);
  const Variable h = x * 1.0;
  Variable y = h * 2.0;
  for (int i = 0; i < 4; ++i) y = y + h * 2.0;
  const Variable loss = sum(y);
  const auto events = profile([&] { loss.backward(); });
  EXPECT_EQ(count(events, "add_"), 4) << "five uses of h: four sums";
  EXPECT_EQ(count(events, "add"), 0);
  EXPECT_NEAR(x.grad().to_vector<float>()[5], 10.0, 1e-6);
}

// The input of a batch norm with a statistics loss and a shortcut: three gradients in one pass.
TEST(Cost, BatchNormAddsTheOtherGradientsOfItsInput) {
  const Net net(false);
  const Variable x(random({4, kC, 8, 8}, 3).to(Layout::blocked), true);
  const auto loss_of = [&](const Variable& h) {
    const Variable y = sum(net.bn(h, Activation::relu()) + h);
    return y + bn_statistics(h, net.mean, net.var);
  };
  const auto events = profile([&] { loss_of(x * 1.0).backward(); });
  EXPECT_EQ(count(events, "batch_norm_eval_grad"), 1);
  EXPECT_EQ(count(events, "bn_statistics_grad"), 0);
  EXPECT_EQ(count(events, "add_") +
                std::count_if(events.begin(), events.end(),
                              [](const auto& e) { return e.op == "add" && e.backward; }),
            0);
  // The same where x itself is the leaf.
  const Variable leaf(x.data(), true);
  loss_of(leaf).backward();
  EXPECT_TRUE(allclose(leaf.grad(), x.grad(), 1e-5, 1e-6));
  // The statistics alone.
  const auto alone = profile([&] { bn_statistics(x * 1.0, net.mean, net.var).backward(); });
  EXPECT_EQ(count(alone, "bn_statistics_grad"), 1);
}

TEST(Cost, BackwardFreesWhatItHasUsed) {
  constexpr int kLayers = 20;
  const Variable x(random({256, 256}, 1), true);
  const size_t size = bytes(x.data());
  Variable y = x;
  for (int i = 0; i < kLayers; ++i) y = sigmoid(y);
  Variable loss = sum(y);
  y = Variable();
  EXPECT_EQ(saved_bytes(loss), kLayers * size);
  const size_t before = memory_stats().in_use;
  reset_peak_memory();
  loss.backward();
  EXPECT_LE(memory_stats().peak, before + 3 * size);
  // All activations are gone though `loss` is alive; x's gradient has come.
  EXPECT_EQ(saved_bytes(loss), 0u);
  EXPECT_LE(memory_stats().in_use, before - kLayers * size + size);
}

TEST(Cost, StatisticsGradientsOfManyLayersAreMadeOneByOne) {
  constexpr int kLayers = 20;
  const Variable x(random({256, 256}, 1), true);
  const Tensor mean = Tensor::zeros({256}), var = Tensor::full({256}, 1.0);
  const size_t size = bytes(x.data());
  std::vector<Variable> layers{x};
  for (int i = 0; i < kLayers; ++i) layers.push_back(sigmoid(layers.back()));
  Variable loss = sum(layers.back());
  for (const Variable& h : layers) loss = loss + bn_statistics(h, mean, var);
  layers.clear();
  const size_t before = memory_stats().in_use;
  reset_peak_memory();
  loss.backward();
  EXPECT_LE(memory_stats().peak, before + 4 * size);
}

TEST(Cost, BackwardRunsUnderTheModulePathOfItsForward) {
  const Variable x(random({2, 3}, 1), true);
  const StageScope stage("distill");
  Variable y;
  {
    const ContextScope outer(ContextScope::Kind::module, "layer2");
    const ContextScope inner(ContextScope::Kind::module, "act");
    y = sum(sigmoid(x));
  }
  const auto events = profile([&] { y.backward(); });
  ASSERT_EQ(count(events, "sigmoid_grad"), 1);
  for (const auto& e : events) {
    EXPECT_TRUE(e.backward) << e.op;
    EXPECT_EQ(e.stage, "distill") << e.op;
    if (e.op == "sigmoid_grad") {
      EXPECT_EQ(e.module, "layer2.act");
    }
  }
  EXPECT_EQ(context_module(), "");
  for (const auto& e : profile([&] { sigmoid(x); })) EXPECT_FALSE(e.backward);
}

TEST(Cost, GraphTextNamesOpsShapesAndBytes) {
  const Variable x(random({2, 3}, 1), true), w(random({4, 3}, 2), true);
  Variable y;
  {
    const ContextScope scope(ContextScope::Kind::module, "fc");
    y = linear(x, w, {});
  }
  const Variable loss = sum(relu(y));
  const std::string dot = graph_dot(loss);
  EXPECT_THAT(dot, HasSubstr("digraph"));
  EXPECT_THAT(dot, HasSubstr("linear\\n[2, 4] f32\\nfc\\nsaves 72 B"));
  EXPECT_THAT(dot, HasSubstr("relu\\n[2, 4] f32"));
  EXPECT_THAT(dot, HasSubstr("leaf\\n[4, 3] f32"));
  EXPECT_EQ(std::count(dot.begin(), dot.end(), '>'), 4) << "edges x, w, linear, relu\n" << dot;
  loss.backward();
  EXPECT_THAT(graph_dot(loss), Not(HasSubstr("saves")));
  EXPECT_EQ(saved_bytes(Variable()), 0u);
}

}  // namespace
}  // namespace mtcki

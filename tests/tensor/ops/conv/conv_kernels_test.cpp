// Which kernels run a convolution on the CPU, how accurate Winograd is, what follows the
// convolution in its kernels, and bf16 in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"
#include "tests/tensor/ops/conv/conv_testing.h"

namespace mtcki {
namespace {

using namespace conv_testing;  // NOLINT: a test's vocabulary
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;

// The kernels that ran while f did, "winograd", "direct", "onednn".
template <class F>
std::vector<std::string> kernels_of(const F& f) {
  profiler::start();
  f();
  profiler::stop();
  std::vector<std::string> names;
  for (const auto& e : profiler::events())
    if (!e.note.empty()) names.push_back(e.note.substr(0, e.note.find(' ')));
  return names;
}

// What docs/decisions/winograd.md promises, over channel counts of real networks.
TEST(ConvKernels, WinogradErrorIsBounded) {
  struct Problem {
    int64_t n, c, k, h, w, stride, pad;
    bool positive;  // as after a ReLU
  };
  const KernelSetting setting({CpuKernels::builtin, true});
  for (const Problem& p : std::vector<Problem>{{16, 16, 16, 32, 32, 1, 1, true},
                                               {3, 64, 64, 33, 31, 1, 1, true},
                                               {1, 128, 256, 15, 17, 1, 1, false},
                                               {2, 256, 128, 8, 8, 1, 2, true},
                                               {2, 512, 512, 7, 7, 1, 1, true},
                                               {2, 512, 512, 4, 4, 1, 1, false},
                                               {1, 512, 64, 13, 9, 1, 0, false},
                                               {16, 16, 32, 32, 32, 2, 1, true},
                                               {3, 64, 128, 33, 31, 2, 1, true},
                                               {2, 256, 512, 8, 8, 2, 1, true},
                                               {2, 512, 256, 14, 14, 2, 1, false}}) {
    const Shape w_shape{p.k, p.c, 3, 3};
    const Conv2dOptions o(p.stride, p.pad);
    Tensor x = noise({p.n, p.c, p.h, p.w}, 30);
    if (p.positive)
      std::for_each_n(x.data<double>(), x.numel(), [](double& v) { v = std::abs(v); });
    const Tensor w = noise(w_shape, 31), y = conv2d(x, w, Tensor(), o), gy = noise(y.shape(), 32);
    const auto f = [](const Tensor& t) { return t.to(DType::f32); };
    Tensor yf, gx, gw;
    const std::vector<std::string> ran = kernels_of([&] {
      yf = conv2d(f(x), f(w), Tensor(), o);
      gx = conv2d_grad_input(f(gy), f(w), x.shape(), o);
      gw = conv2d_grad_weight(f(gy), f(x), w_shape, o);
    });
    const std::string where = str("n", p.n, " ", p.c, "->", p.k, " ", p.h, "x", p.w, " stride ",
                                  p.stride, " pad ", p.pad);
    EXPECT_THAT(ran, ElementsAre("winograd", "winograd", "winograd")) << where;
    EXPECT_LT(error(yf, y), 1e-5) << where;
    EXPECT_LT(error(gx, conv2d_grad_input(gy, w, x.shape(), o)), 1e-5) << where;
    EXPECT_LT(error(gw, conv2d_grad_weight(gy, x, w_shape, o)), 1e-4) << where;
  }
}

TEST(ConvKernels, WithoutWinogradOnlyDirectKernelsRun) {
  for (const Setting& s : settings()) {
    const KernelSetting setting({s.kernels, false});
    for (const Case& c : cases()) {
      if (c.options.groups > 1) continue;  // below
      const Tensor x = Tensor::zeros({c.n, c.c, c.h, c.w}), w = Tensor::zeros({c.k, c.c, c.r, c.s});
      const std::vector<std::string> ran = kernels_of([&] {
        const Tensor y = conv2d(x, w, Tensor(), c.options);
        conv2d_grad_input(y, w, x.shape(), c.options);
        conv2d_grad_weight(y, x, w.shape(), c.options);
      });
      EXPECT_EQ(ran.size(), 3u) << text(c);
      EXPECT_THAT(ran, Each(AnyOf("direct", "onednn", "pointwise")))
          << text(c) << " " << name_of(s);
    }
  }
}

TEST(ConvKernels, GroupsOfWholeBlocksHaveKernels) {
  const auto ran = [](int64_t c, int64_t k, int64_t groups) {
    Conv2dOptions o(2, 1);
    o.groups = groups;
    const Tensor x = Tensor::zeros({2, c, 9, 9}), w = Tensor::zeros({k, c / groups, 3, 3});
    return kernels_of([&] {
      const Tensor y = conv2d(x, w, Tensor(), o);
      conv2d_grad_input(y, w, x.shape(), o);
      conv2d_grad_weight(y, x, w.shape(), o);
    });
  };
  EXPECT_THAT(ran(32, 32, 32), ElementsAre("depthwise", "depthwise", "depthwise"));
  EXPECT_THAT(ran(64, 32, 2), ElementsAre("groups", "groups", "groups"));
  EXPECT_THAT(ran(12, 12, 12), ElementsAre("depthwise", "depthwise", "depthwise"));
  for (const auto& plain : {ran(12, 24, 12), ran(32, 64, 32), ran(16, 32, 8)})
    EXPECT_THAT(plain, ElementsAre("reference", "reference", "reference"));
}

// Batch norms, residual and activation in the kernels that load x and store y, against the ops one
// by one.
TEST(ConvKernels, FusionsInTheKernelsEqualTheOpsOneByOne) {
  for (const Case& c : cases()) {
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 1).to(DType::f32);
    const Tensor w = noise({c.k, c.c / c.options.groups, c.r, c.s}, 2).to(DType::f32);
    const auto values = [](int64_t n, uint64_t seed) { return noise({n}, seed).to(DType::f32); };
    const auto batch_norm = [&](int64_t n, uint64_t seed) {
      return ConvFusion::BatchNorm{values(n, seed), values(n, seed + 1),
                                   mul(values(n, seed + 2), 30.0),
                                   add(square(values(n, seed + 3)), 0.1), 1e-5};
    };
    const Tensor bias = values(c.k, 3);
    const ConvFusion::BatchNorm norm = batch_norm(c.k, 4), before = batch_norm(c.c, 9);
    const Tensor normalised = batch_norm_eval(x, before.weight, before.bias, before.mean,
                                              before.var, before.eps, Activation::relu());
    const Tensor y = conv2d(x, w, bias, c.options);
    const Tensor residual = mul(noise(y.shape(), 8).to(DType::f32), 5.0);
    for (const Setting& s : settings()) {
      const KernelSetting setting(s);
      for (int parts = 0; parts < 32; ++parts) {
        ConvFusion f;
        if (parts & 1) f.norm = norm;
        if (parts & 2) f.residual = residual;
        if (parts & 4) f.act = Activation::relu();
        const Tensor b = parts & 8 ? bias : Tensor();
        if (parts & 16) f.norm_before = before;
        const Tensor plain = conv2d(parts & 16 ? normalised : x, w, b, c.options);
        Tensor want = parts & 1 ? batch_norm_eval(plain, norm.weight, norm.bias, norm.mean,
                                                  norm.var, norm.eps)
                                : plain;
        if (parts & 2) want = add(want, residual);
        if (parts & 4) want = relu(want);
        EXPECT_LT(error(conv2d(x, w, b, c.options, f), want.to(DType::f64)), 1e-5)
            << text(c) << " with " << name_of(s) << ", parts " << parts;
      }
    }
  }
}

TEST(ConvKernels, WeightGradientBehindABatchNormEqualsThatOfItsOutput) {
  for (const Case& c : cases()) {
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 1).to(DType::f32);
    const Tensor w = noise({c.k, c.c / c.options.groups, c.r, c.s}, 2).to(DType::f32);
    const auto values = [&](uint64_t seed) { return noise({c.c}, seed).to(DType::f32); };
    const Tensor mean = values(3), invstd = add(square(values(4)), 0.1);
    for (const Activation act : {Activation::relu(), Activation::bounded_relu(0.5),
                                 Activation::leaky_relu(0.1), Activation::none()}) {
      const ConvFusion::BatchNorm norm{values(5), values(6), mean, {}, 0.0, invstd, act};
      const Tensor a = batch_norm_apply(x, norm.weight, norm.bias, mean, invstd, act);
      for (const Setting& s : settings()) {
        const KernelSetting setting(s);
        ConvFusion fusion;
        fusion.norm_before = norm;
        const Tensor y = conv2d(a, w, {}, c.options);
        // The kernels see the values that the op would have stored.
        EXPECT_TRUE(identical(conv2d(x, w, {}, c.options, fusion), y)) << text(c);
        const Tensor gy = noise(y.shape(), 7).to(DType::f32);
        EXPECT_TRUE(identical(conv2d_grad_weight(gy, x, w.shape(), c.options, {}, false, &norm),
                              conv2d_grad_weight(gy, a, w.shape(), c.options)))
            << text(c) << " with " << name_of(s);
      }
    }
  }
}

TEST(ConvKernels, ResidualThatIsGivenAwayIsWrittenOver) {
  const KernelSetting setting(settings().front());
  const Tensor x = noise({2, 16, 9, 9}, 1).to(DType::f32),
               w = noise({16, 16, 3, 3}, 2).to(DType::f32);
  const Conv2dOptions o(1, 1);
  ConvFusion fusion;
  fusion.residual = conv2d(x, w, {}, o);
  const Tensor want = conv2d(x, w, {}, o, fusion);
  EXPECT_FALSE(want.shares_memory(fusion.residual));
  const void* memory = fusion.residual.raw();
  const Tensor y = conv2d(x, w, {}, o, std::move(fusion));
  EXPECT_EQ(y.raw(), memory);
  EXPECT_TRUE(identical(y, want));
}

TEST(ConvKernels, NeighboursWithoutAKernelAreTheOpsOneByOne) {
  for (const DType dtype : {DType::f64, DType::bf16, DType::f32}) {
    const Tensor x = noise({2, 16, 6, 6}, 1).to(dtype), w = noise({16, 16, 3, 3}, 2).to(dtype);
    const Tensor one = Tensor::full({16}, 1.0, dtype), zero = Tensor::zeros({16}, dtype);
    ConvFusion f;
    f.act = Activation::leaky_relu(0.2);
    f.residual = noise({2, 16, 6, 6}, 3).to(dtype);
    const Conv2dOptions o(1, 1);
    const Tensor y = conv2d(x, w, {}, o);
    EXPECT_TRUE(
        identical(conv2d(x, w, {}, o, f).plain(), leaky_relu(add(y, f.residual), 0.2).plain()))
        << mtcki::name_of(dtype);
    f.norm = ConvFusion::BatchNorm{one, zero, zero, one, 1e-5};
    EXPECT_TRUE(
        identical(conv2d(x, w, {}, o, f).plain(),
                  batch_norm_eval(y, one, zero, zero, one, 1e-5, f.act, f.residual).plain()))
        << mtcki::name_of(dtype);
    ConvFusion prologue;
    prologue.norm_before = f.norm;
    ConvFusion known = f;  // with statistics of a batch
    known.norm = ConvFusion::BatchNorm{one, zero, zero, {}, 0.0, one};
    const Tensor normal = batch_norm_apply(y, one, zero, zero, one);
    EXPECT_TRUE(identical(conv2d(x, w, {}, o, known).plain(),
                          leaky_relu(add(normal, f.residual), 0.2).plain()))
        << mtcki::name_of(dtype);
    const Tensor a = batch_norm_eval(x, one, zero, zero, one, 1e-5, Activation::relu());
    EXPECT_TRUE(identical(conv2d(x, w, {}, o, prologue).plain(), conv2d(a, w, {}, o).plain()))
        << mtcki::name_of(dtype);
  }
}

// Only memory is bf16: the arithmetic is that of f32, and each result is rounded once.
TEST(ConvKernels, WinogradInBf16IsF32Rounded) {
  const KernelSetting setting({CpuKernels::builtin, true});
  ASSERT_FALSE(bf16_channels_last());
  for (const int64_t stride : {1, 2}) {
    const Conv2dOptions o(stride, 1);
    const Tensor x = noise({3, 32, 9, 11}, 31).to(DType::bf16);
    const Tensor w = noise({48, 32, 3, 3}, 32).to(DType::f32), b = noise({48}, 33).to(DType::f32);
    profiler::start();
    const Tensor y = conv2d(x, w, b, o), gy = noise(y.shape(), 34).to(DType::bf16);
    const Tensor gx = conv2d_grad_input(gy, w, x.shape(), o);
    const Tensor gw = conv2d_grad_weight(gy, x, w.shape(), o, DType::f32);
    profiler::stop();
    int convolutions = 0;
    for (const auto& e : profiler::events())
      convolutions += e.note.rfind("winograd bf16", 0) == 0 ? 1 : 0;
    EXPECT_EQ(convolutions, 3);
    EXPECT_EQ(y.layout(), Layout::blocked);
    const auto same = [](const Tensor& got, const Tensor& want) {
      return got.to_vector<bfloat16>() == want.to(DType::bf16).to_vector<bfloat16>();
    };
    const Tensor wide_x = x.to(DType::f32), wide_gy = gy.to(DType::f32);
    EXPECT_TRUE(same(y, conv2d(wide_x, w, b, o))) << "stride " << stride;
    EXPECT_TRUE(same(gx, conv2d_grad_input(wide_gy, w, x.shape(), o))) << "stride " << stride;
    EXPECT_EQ(gw.to_vector<float>(),
              conv2d_grad_weight(wide_gy, wide_x, w.shape(), o).to_vector<float>());
  }
}

}  // namespace
}  // namespace mtcki

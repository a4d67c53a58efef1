// Convolution: every kernel family against the plain f64 loops, over shapes that exercise borders,
// strides and channel counts; a hand-worked value; error texts.
#include "tensor/ops/conv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"
#include "tensor/profiler.h"

namespace mtcki {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Deterministic values in [-1, 1) without structure that could hide a wrong index.
Tensor noise(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f64);
  double* p = t.data<double>();
  uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (int64_t i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    // Rounded to f32, so that both precisions start from the same numbers.
    p[i] = static_cast<float>(static_cast<double>(state >> 11) * 0x1.0p-52 - 1.0);
  }
  return t;
}

// Root mean square of the difference over that of the reference.
double error(const Tensor& got, const Tensor& want) {
  EXPECT_EQ(got.shape(), want.shape());
  const auto a = got.to(DType::f64).to_vector<double>(), b = want.to_vector<double>();
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size + 1e-300));
}

struct Setting {
  CpuKernels kernels;
  bool winograd;
};

class KernelSetting {
 public:
  explicit KernelSetting(const Setting& s) : before_{cpu_kernels(), winograd()} { set(s); }
  ~KernelSetting() { set(before_); }

 private:
  static void set(const Setting& s) {
    set_cpu_kernels(s.kernels);
    set_winograd(s.winograd);
  }
  Setting before_;
};

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const bool winograd : {true, false})
    for (CpuKernels kernels : {CpuKernels::automatic, CpuKernels::builtin})
      all.push_back({kernels, winograd});
  if (onednn_available()) all.push_back({CpuKernels::onednn, true});
  return all;
}

std::string name_of(const Setting& s) {
  const std::string kernels = s.kernels == CpuKernels::automatic ? "automatic"
                              : s.kernels == CpuKernels::builtin ? "builtin"
                                                                 : "onednn";
  return s.winograd ? kernels : kernels + " without Winograd";
}

struct Case {
  int64_t n, c, k, h, w, r, s;
  Conv2dOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](int64_t n, int64_t c, int64_t k, int64_t size, int64_t kernel,
                       int64_t stride, int64_t pad) {
    all.push_back({n, c, k, size, size, kernel, kernel, Conv2dOptions(stride, pad)});
  };
  // 3x3 stride 1 pad 1: Winograd where the channels allow; sizes with and without remainder of 4.
  for (int64_t size : {4, 5, 7, 8, 14, 28, 32, 1, 2, 3}) add(2, 16, 16, size, 3, 1, 1);
  add(1, 8, 24, 7, 3, 1, 1);
  add(5, 24, 8, 14, 3, 1, 1);
  add(2, 64, 48, 9, 3, 1, 1);
  add(3, 128, 128, 4, 3, 1, 1);
  add(2, 32, 16, 10, 3, 1, 0);
  add(2, 16, 32, 6, 3, 1, 2);
  add(9, 80, 16, 16, 3, 1, 1);
  // The same at stride 2.
  for (int64_t size : {1, 2, 3, 4, 6, 8, 9, 16, 17, 32}) add(2, 16, 16, size, 3, 2, 1);
  add(1, 8, 24, 11, 3, 2, 1);
  add(5, 24, 8, 14, 3, 2, 1);
  add(2, 64, 48, 9, 3, 2, 1);
  add(35, 48, 80, 8, 3, 2, 1);
  // Few or odd channels: images in, images out, neither multiple of the block.
  for (int64_t c : {1, 3, 10}) {
    add(2, c, 16, 28, 3, 1, 1);
    add(5, 16, c, 14, 3, 1, 1);
    add(1, c, 10, 7, 3, 2, 1);
    add(2, c, c, 9, 5, 2, 2);
    add(2, 64, c, 32, 3, 1, 1);
    add(2, c, 64, 32, 3, 1, 1);
  }
  // Strides, kernels.
  for (int64_t size : {7, 14, 28, 5}) {
    add(2, 16, 32, size, 3, 2, 1);
    add(2, 16, 32, size, 1, 2, 0);
    add(2, 16, 32, size, 1, 1, 0);
    add(1, 8, 16, size, 4, 2, 1);
  }
  add(2, 3, 64, 32, 7, 2, 3);
  add(1, 16, 8, 14, 7, 1, 3);
  add(2, 24, 40, 8, 4, 1, 0);
  add(2, 16, 16, 11, 3, 3, 1);
  add(1, 16, 16, 13, 2, 4, 0);
  // Rectangles, unequal strides and paddings, dilation, groups.
  Case odd{2, 16, 24, 9, 17, 3, 5, Conv2dOptions()};
  odd.options.stride = {2, 1};
  odd.options.padding = {0, 3};
  all.push_back(odd);
  Case tall{2, 16, 16, 40, 6, 3, 3, Conv2dOptions(1, 1)};
  all.push_back(tall);
  Case dilated{2, 16, 16, 12, 12, 3, 3, Conv2dOptions(1, 2)};
  dilated.options.dilation = {2, 2};
  all.push_back(dilated);
  Case grouped{2, 16, 32, 10, 10, 3, 3, Conv2dOptions(1, 1)};
  grouped.options.groups = 4;
  all.push_back(grouped);
  return all;
}

std::string text(const Case& c) {
  return str("n", c.n, " ", c.c, "->", c.k, " ", c.h, "x", c.w, " kernel ", c.r, "x", c.s,
             " stride ", c.options.stride[0], " pad ", c.options.padding[0], " dilation ",
             c.options.dilation[0], " groups ", c.options.groups);
}

constexpr double kTolerance = 5e-6;

TEST(Conv2d, KernelsAgreeWithReference) {
  for (const Case& c : cases()) {
    const Shape w_shape{c.k, c.c / c.options.groups, c.r, c.s};
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 1), w = noise(w_shape, 2), bias = noise({c.k}, 3);
    const Tensor y = conv2d(x, w, bias, c.options);  // f64: plain loops
    const Tensor gy = noise(y.shape(), 4);
    const Tensor gx = conv2d_grad_input(gy, w, x.shape(), c.options);
    const Tensor gw = conv2d_grad_weight(gy, x, w_shape, c.options);
    const Tensor gb = conv2d_grad_bias(gy);
    for (const Setting& kernels : settings()) {
      const KernelSetting setting(kernels);
      const std::string where = text(c) + " " + name_of(kernels);
      const auto f = [](const Tensor& t) { return t.to(DType::f32); };
      const Tensor yf = conv2d(f(x), f(w), f(bias), c.options);
      EXPECT_LT(error(yf, y), kTolerance) << where;
      EXPECT_LT(error(conv2d(f(x), f(w), Tensor(), c.options), conv2d(x, w, Tensor(), c.options)),
                kTolerance)
          << where << " without bias";
      EXPECT_LT(error(conv2d_grad_input(f(gy), f(w), x.shape(), c.options), gx), kTolerance)
          << where;
      EXPECT_LT(error(conv2d_grad_weight(f(gy), f(x), w_shape, c.options), gw), kTolerance)
          << where;
      EXPECT_LT(error(conv2d_grad_bias(f(gy).to(yf.layout())), gb), kTolerance) << where;
      if (c.options.groups == 1) {
        EXPECT_EQ(yf.layout(), preferred_layout({}, DType::f32, c.k)) << where;
      }
    }
  }
}

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
TEST(Conv2d, WinogradErrorIsBounded) {
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

TEST(Conv2d, WithoutWinogradOnlyDirectKernelsRun) {
  for (const Setting& s : settings()) {
    const KernelSetting setting({s.kernels, false});
    for (const Case& c : cases()) {
      if (c.options.groups > 1) continue;  // plain loops
      const Tensor x = Tensor::zeros({c.n, c.c, c.h, c.w}), w = Tensor::zeros({c.k, c.c, c.r, c.s});
      const std::vector<std::string> ran = kernels_of([&] {
        const Tensor y = conv2d(x, w, Tensor(), c.options);
        conv2d_grad_input(y, w, x.shape(), c.options);
        conv2d_grad_weight(y, x, w.shape(), c.options);
      });
      EXPECT_EQ(ran.size(), 3u) << text(c);
      EXPECT_THAT(ran, Each(AnyOf("direct", "onednn"))) << text(c) << " " << name_of(s);
    }
  }
}

// Batch norm, residual and activation in the kernels that store y, against the ops one by one.
TEST(Conv2d, FollowersInTheKernelsEqualTheOpsOneByOne) {
  for (const Case& c : cases()) {
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 1).to(DType::f32);
    const Tensor w = noise({c.k, c.c / c.options.groups, c.r, c.s}, 2).to(DType::f32);
    const auto channels = [&](uint64_t seed) { return noise({c.k}, seed).to(DType::f32); };
    const Tensor bias = channels(3);
    ConvFollowers::BatchNorm norm{channels(4), channels(5), mul(channels(6), 30.0),
                                  add(square(channels(7)), 0.1), 1e-5};
    const Tensor y = conv2d(x, w, bias, c.options);
    const Tensor residual = mul(noise(y.shape(), 8).to(DType::f32), 5.0);
    for (const Setting& s : settings()) {
      const KernelSetting setting(s);
      for (int parts = 0; parts < 16; ++parts) {
        ConvFollowers f;
        if (parts & 1) f.norm = norm;
        if (parts & 2) f.residual = residual;
        if (parts & 4) f.act = Activation::relu();
        const Tensor b = parts & 8 ? bias : Tensor();
        const Tensor plain = conv2d(x, w, b, c.options);
        Tensor want = parts & 1 ? batch_norm_eval(plain, norm.weight, norm.bias, norm.running_mean,
                                                  norm.running_var, norm.eps)
                                : plain;
        if (parts & 2) want = add(want, residual);
        if (parts & 4) want = relu(want);
        EXPECT_LT(error(conv2d(x, w, b, c.options, f), want.to(DType::f64)), 1e-5)
            << text(c) << " with " << name_of(s) << ", parts " << parts;
      }
    }
  }
}

TEST(Conv2d, FollowersWithoutAKernelAreTheOpsOneByOne) {
  for (const DType dtype : {DType::f64, DType::bf16, DType::f32}) {
    const Tensor x = noise({2, 16, 6, 6}, 1).to(dtype), w = noise({16, 16, 3, 3}, 2).to(dtype);
    const Tensor one = Tensor::full({16}, 1.0, dtype), zero = Tensor::zeros({16}, dtype);
    ConvFollowers f;
    f.act = Activation::leaky_relu(0.2);
    f.residual = noise({2, 16, 6, 6}, 3).to(dtype);
    const Conv2dOptions o(1, 1);
    const Tensor y = conv2d(x, w, {}, o);
    EXPECT_TRUE(
        identical(conv2d(x, w, {}, o, f).plain(), leaky_relu(add(y, f.residual), 0.2).plain()))
        << mtcki::name_of(dtype);
    f.norm = ConvFollowers::BatchNorm{one, zero, zero, one, 1e-5};
    EXPECT_TRUE(
        identical(conv2d(x, w, {}, o, f).plain(),
                  batch_norm_eval(y, one, zero, zero, one, 1e-5, f.act, f.residual).plain()))
        << mtcki::name_of(dtype);
  }
}

TEST(Conv2d, ReferenceIsTheDefinition) {
  // Written out from the formula, with every index explicit.
  Conv2dOptions o;
  o.stride = {2, 1};
  o.padding = {1, 2};
  o.dilation = {1, 2};
  o.groups = 2;
  const Tensor x = noise({2, 4, 6, 5}, 5), w = noise({6, 2, 3, 2}, 6), bias = noise({6}, 7);
  const Tensor y = conv2d(x, w, bias, o);
  ASSERT_EQ(y.shape(), (Shape{2, 6, 3, 7}));
  const auto xv = x.to_vector<double>(), wv = w.to_vector<double>(), yv = y.to_vector<double>();
  for (int64_t n = 0, at = 0; n < 2; ++n)
    for (int64_t k = 0; k < 6; ++k)
      for (int64_t p = 0; p < 3; ++p)
        for (int64_t q = 0; q < 7; ++q, ++at) {
          double sum = bias.to_vector<double>()[static_cast<size_t>(k)];
          for (int64_t c = 0; c < 2; ++c)
            for (int64_t i = 0; i < 3; ++i)
              for (int64_t j = 0; j < 2; ++j) {
                const int64_t row = p * 2 - 1 + i, column = q - 2 + j * 2;
                if (row < 0 || row >= 6 || column < 0 || column >= 5) continue;
                const int64_t channel = k / 3 * 2 + c;
                sum += xv[static_cast<size_t>(((n * 4 + channel) * 6 + row) * 5 + column)] *
                       wv[static_cast<size_t>(((k * 2 + c) * 3 + i) * 2 + j)];
              }
          ASSERT_NEAR(yv[static_cast<size_t>(at)], sum, 1e-13);
        }
}

// <conv(x, w), gy> = <x, grad_input(gy, w)> = <w, grad_weight(gy, x)>: what makes them gradients.
TEST(Conv2d, GradientsAreAdjoint) {
  const auto dot = [](const Tensor& a, const Tensor& b) {
    const auto u = a.to_vector<double>(), v = b.to_vector<double>();
    double sum = 0;
    for (size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
    return sum;
  };
  for (const Case& c : cases()) {
    const Shape w_shape{c.k, c.c / c.options.groups, c.r, c.s};
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 8), w = noise(w_shape, 9);
    const Tensor y = conv2d(x, w, Tensor(), c.options);
    const Tensor gy = noise(y.shape(), 10);
    const double want = dot(y, gy);
    const double scale = 1e-10 * (1 + std::abs(want));
    EXPECT_NEAR(dot(x, conv2d_grad_input(gy, w, x.shape(), c.options)), want, scale) << text(c);
    EXPECT_NEAR(dot(w, conv2d_grad_weight(gy, x, w_shape, c.options)), want, scale) << text(c);
  }
}

TEST(Conv2d, LongSumsStayAccurate) {
  // A batch of 64 at 32x32: 65536 terms in every element of the weight gradient, all positive.
  for (const Setting& kernels : settings()) {
    const KernelSetting setting(kernels);
    Tensor x = noise({64, 16, 32, 32}, 11), gy = noise({64, 16, 32, 32}, 12);
    double* p = x.data<double>();
    for (int64_t i = 0; i < x.numel(); ++i) p[i] = std::abs(p[i]);
    const Conv2dOptions o(1, 1);
    const Tensor want = conv2d_grad_weight(gy, x, {16, 16, 3, 3}, o);
    const Tensor got = conv2d_grad_weight(gy.to(DType::f32), x.to(DType::f32), {16, 16, 3, 3}, o);
    EXPECT_LT(error(got, want), 1e-5) << name_of(kernels);
  }
}

TEST(Conv2d, RepeatsBitForBit) {
  const Tensor x = noise({6, 32, 16, 16}, 13).to(DType::f32);
  const Tensor w = noise({32, 32, 3, 3}, 14).to(DType::f32);
  for (const int64_t stride : {1, 2})
    for (const Setting& kernels : settings()) {
      const KernelSetting setting(kernels);
      const Conv2dOptions o(stride, 1);
      const auto once = [&] {
        const Tensor y = conv2d(x, w, Tensor(), o);
        auto all = y.to_vector<float>();
        for (const Tensor& t :
             {conv2d_grad_input(y, w, x.shape(), o), conv2d_grad_weight(y, x, w.shape(), o)}) {
          const auto v = t.to_vector<float>();
          all.insert(all.end(), v.begin(), v.end());
        }
        return all;
      };
      const auto first = once();
      for (int i = 0; i < 5; ++i)
        EXPECT_EQ(once(), first) << name_of(kernels) << " stride " << stride;
    }
}

TEST(Conv2d, AnyInputLayout) {
  const Tensor x = noise({2, 16, 8, 8}, 15).to(DType::f32),
               w = noise({16, 16, 3, 3}, 16).to(DType::f32);
  const auto want = conv2d(x, w, Tensor(), Conv2dOptions(1, 1)).to_vector<float>();
  for (Layout layout : {Layout::channels_last, Layout::blocked})
    EXPECT_EQ(conv2d(x.to(layout), w, Tensor(), Conv2dOptions(1, 1)).to_vector<float>(), want);
}

TEST(Conv2d, Bf16ComputesInF32) {
  const Tensor x = noise({2, 8, 6, 6}, 17).to(DType::bf16),
               w = noise({8, 8, 3, 3}, 18).to(DType::bf16);
  const Tensor y = conv2d(x, w, Tensor(), Conv2dOptions(1, 1));
  EXPECT_EQ(y.dtype(), DType::bf16);
  const Tensor want = conv2d(x.to(DType::f64), w.to(DType::f64), Tensor(), Conv2dOptions(1, 1));
  EXPECT_LT(error(y, want), 4e-3);
}

// Only memory is bf16: the arithmetic is that of f32, and each result is rounded once.
TEST(Conv2d, WinogradInBf16IsF32Rounded) {
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

TEST(Conv2d, EmptyBatch) {
  const Tensor x = Tensor::zeros({0, 8, 6, 6}), w = Tensor::zeros({8, 8, 3, 3});
  const Conv2dOptions o(1, 1);
  const Tensor y = conv2d(x, w, Tensor(), o);
  EXPECT_EQ(y.shape(), (Shape{0, 8, 6, 6}));
  EXPECT_EQ(conv2d_grad_input(y, w, x.shape(), o).shape(), x.shape());
  for (float v : conv2d_grad_weight(y, x, w.shape(), o).to_vector<float>()) EXPECT_EQ(v, 0.0f);
}

TEST(ConvTranspose2d, IsTheAdjointAndItsGradientsAgree) {
  struct Row {
    int64_t c, k, size, kernel, stride, pad, out_pad, groups;
  };
  for (const Row& row : std::vector<Row>{{16, 8, 4, 4, 2, 1, 0, 1},
                                         {16, 16, 7, 3, 2, 1, 1, 1},
                                         {8, 3, 8, 4, 2, 1, 0, 1},
                                         {32, 16, 1, 4, 1, 0, 0, 1},
                                         {16, 24, 5, 3, 1, 1, 0, 1},
                                         {8, 16, 5, 3, 2, 0, 1, 2}}) {
    ConvTranspose2dOptions o(row.stride, row.pad);
    o.output_padding = {row.out_pad, row.out_pad};
    o.groups = row.groups;
    const Shape w_shape{row.c, row.k / row.groups, row.kernel, row.kernel};
    const Tensor x = noise({3, row.c, row.size, row.size}, 19), w = noise(w_shape, 20);
    const Tensor bias = noise({row.k}, 21);
    const Tensor y = conv_transpose2d(x, w, bias, o);
    const int64_t size = (row.size - 1) * row.stride - 2 * row.pad + row.kernel + row.out_pad;
    ASSERT_EQ(y.shape(), (Shape{3, row.k, size, size}));
    // Its definition: scatter of every input pixel through the kernel.
    std::vector<double> want(static_cast<size_t>(y.numel()));
    const auto xv = x.to_vector<double>(), wv = w.to_vector<double>(),
               bv = bias.to_vector<double>();
    const int64_t cg = row.c / row.groups, kg = row.k / row.groups;
    for (int64_t n = 0; n < 3; ++n)
      for (int64_t c = 0; c < row.c; ++c)
        for (int64_t h = 0; h < row.size * row.size; ++h)
          for (int64_t k = 0; k < kg; ++k)
            for (int64_t t = 0; t < row.kernel * row.kernel; ++t) {
              const int64_t p = h / row.size * row.stride - row.pad + t / row.kernel;
              const int64_t q = h % row.size * row.stride - row.pad + t % row.kernel;
              if (p < 0 || p >= size || q < 0 || q >= size) continue;
              want[static_cast<size_t>(((n * row.k + c / cg * kg + k) * size + p) * size + q)] +=
                  xv[static_cast<size_t>((n * row.c + c) * row.size * row.size + h)] *
                  wv[static_cast<size_t>((c * kg + k) * row.kernel * row.kernel + t)];
            }
    for (size_t i = 0; i < want.size(); ++i)
      want[i] += bv[i / static_cast<size_t>(size * size) % static_cast<size_t>(row.k)];
    EXPECT_LT(error(y, Tensor::from(want, y.shape())), 1e-13);

    const Tensor gy = noise(y.shape(), 22);
    const Tensor gx = conv_transpose2d_grad_input(gy, w, o);
    const Tensor gw = conv_transpose2d_grad_weight(gy, x, w_shape, o);
    const auto dot = [](const std::vector<double>& u, const std::vector<double>& v) {
      double sum = 0;
      for (size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
      return sum;
    };
    const auto y0 = conv_transpose2d(x, w, Tensor(), o).to_vector<double>();
    const double inner = dot(y0, gy.to_vector<double>());
    EXPECT_NEAR(dot(x.to_vector<double>(), gx.to_vector<double>()), inner, 1e-10);
    EXPECT_NEAR(dot(w.to_vector<double>(), gw.to_vector<double>()), inner, 1e-10);
    for (const Setting& kernels : settings()) {
      const KernelSetting setting(kernels);
      const auto f = [](const Tensor& t) { return t.to(DType::f32); };
      EXPECT_LT(error(conv_transpose2d(f(x), f(w), f(bias), o), y), kTolerance);
      EXPECT_LT(error(conv_transpose2d_grad_input(f(gy), f(w), o), gx), kTolerance);
      EXPECT_LT(error(conv_transpose2d_grad_weight(f(gy), f(x), w_shape, o), gw), kTolerance);
    }
  }
}

TEST(Conv2d, ProfilerSeesEveryDirection) {
  const Tensor x = Tensor::zeros({2, 16, 8, 8}), w = Tensor::zeros({32, 16, 3, 3});
  const Conv2dOptions o(1, 1);
  profiler::start();
  const Tensor y = conv2d(x, w, Tensor(), o);
  conv2d_grad_input(y, w, x.shape(), o);
  conv2d_grad_weight(y, x, w.shape(), o);
  profiler::stop();
  int seen = 0;
  for (const auto& e : profiler::events()) {
    if (e.op != "conv2d" && e.op != "conv2d_grad_input" && e.op != "conv2d_grad_weight") continue;
    ++seen;
    EXPECT_EQ(e.flops, 2.0 * 2 * 32 * 64 * 16 * 9) << e.op;
  }
  EXPECT_EQ(seen, 3);
}

template <class E, class F>
std::string message(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "no exception of this type";
}

TEST(Conv2d, ErrorTexts) {
  const Tensor x = Tensor::zeros({2, 32, 8, 8}), w = Tensor::zeros({16, 64, 3, 3});
  const std::string wrong = message<ShapeError>([&] { conv2d(x, w, Tensor()); });
  EXPECT_THAT(wrong, HasSubstr("conv2d: weight expects 64 input channels, input has 32"));
  EXPECT_THAT(wrong, HasSubstr("[2, 32, 8, 8] f32 cpu"));
  EXPECT_THAT(wrong, HasSubstr("[16, 64, 3, 3] f32 cpu"));
  const Tensor ok = Tensor::zeros({16, 32, 3, 3});
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d(Tensor::zeros({32, 8, 8}), ok, Tensor());
              }),
              HasSubstr("input needs rank 4"));
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d(x, Tensor::zeros({16, 32, 9, 9}), Tensor());
              }),
              HasSubstr("kernel 9x9 is larger than the padded input 8x8"));
  EXPECT_THAT(message<ShapeError>([&] { conv2d(x, ok, Tensor::zeros({8})); }),
              HasSubstr("bias needs shape [16], got [8]"));
  Conv2dOptions groups;
  groups.groups = 3;
  EXPECT_THAT(message<ShapeError>([&] { conv2d(x, ok, Tensor(), groups); }),
              HasSubstr("groups = 3 needs to divide 32 input and 16 output channels"));
  EXPECT_THAT(message<ShapeError>([&] { conv2d(x, ok, Tensor(), Conv2dOptions(0, 1)); }),
              HasSubstr("stride needs to be at least 1, got 0"));
  EXPECT_THAT(message<DTypeError>([&] { conv2d(x, ok.to(DType::f64), Tensor()); }),
              HasSubstr("weight is f64, input is f32"));
  EXPECT_THAT(message<DTypeError>([&] { conv2d(x.to(DType::i64), ok, Tensor()); }),
              HasSubstr("input needs a floating dtype"));
  EXPECT_THAT(message<ShapeError>([&] { conv2d(Tensor(), ok, Tensor()); }),
              HasSubstr("input is undefined"));
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d_grad_input(Tensor::zeros({2, 16, 8, 8}), ok, x.shape());
              }),
              HasSubstr("grad_output needs shape [2, 16, 6, 6], got [2, 16, 8, 8]"));
  ConvTranspose2dOptions transposed(2, 1);
  transposed.output_padding = {2, 2};
  EXPECT_THAT(message<ShapeError>([&] {
                conv_transpose2d(x, Tensor::zeros({32, 8, 4, 4}), Tensor(), transposed);
              }),
              HasSubstr("output_padding needs to be at least 0 and below the stride 2, got 2"));
  if (!onednn_available()) {
    EXPECT_THAT(message<UsageError>([&] { set_cpu_kernels(CpuKernels::onednn); }),
                HasSubstr("no oneDNN"));
  }
}

}  // namespace
}  // namespace mtcki

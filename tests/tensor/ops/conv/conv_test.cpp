// Convolution: every kernel family against the plain f64 loops, over shapes that exercise borders,
// strides and channel counts; a hand-worked value; error texts.
#include "tensor/ops/conv/conv.h"

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
#include "tests/tensor/ops/conv/conv_testing.h"

namespace mtcki {
namespace {

using namespace conv_testing;  // NOLINT: a test's vocabulary
using ::testing::HasSubstr;

TEST(Conv2d, KernelsAgreeWithReference) {
  for (const Case& c : cases()) {
    const Shape w_shape{c.k, c.c / c.options.groups, c.r, c.s};
    const Tensor x = noise({c.n, c.c, c.h, c.w}, 1), w = noise(w_shape, 2), bias = noise({c.k}, 3);
    const Tensor y = conv2d(x, w, bias, c.options);  // f64: plain loops
    const Tensor gy = noise(y.shape(), 4);
    const Tensor gx = conv2d_grad_input(gy, w, x.shape(), c.options);
    const Tensor gw = conv2d_grad_weight(gy, x, w_shape, c.options);
    const Tensor gb = conv2d_grad_bias(gy), gb_size = conv2d_grad_bias(abs(gy));
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
      // Against the size of what is summed: a sum may cancel.
      EXPECT_LT(error(add(conv2d_grad_bias(f(gy).to(yf.layout())).to(DType::f64), gb_size),
                      add(gb, gb_size)),
                kTolerance)
          << where;
      if (c.options.groups == 1) {
        EXPECT_EQ(yf.layout(), preferred_layout({}, DType::f32, c.k)) << where;
      }
    }
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

// Planes shorter than the stride, kernels with taps that meet no pixel. Whatever a kernel leaves
// unwritten holds NaN here.
TEST(Conv2d, Bf16WeightGradientsOfTinyPlanes) {
  struct Case {
    int64_t c, k, h, w, kernel, stride, padding;
  };
  for (const Case& t : {Case{16, 48, 12, 1, 3, 2, 1},
                        {16, 48, 7, 2, 3, 3, 1},
                        {16, 16, 2, 2, 7, 1, 3},
                        {128, 128, 1, 8, 5, 1, 2},
                        {8, 16, 4, 1, 1, 2, 0},
                        {32, 32, 1, 1, 3, 1, 1},
                        {32, 32, 2, 2, 3, 1, 1}}) {
    const Conv2dOptions o(t.stride, t.padding);
    const Tensor x = noise({4, t.c, t.h, t.w}, 41).to(DType::bf16);
    const Shape shape{t.k, t.c, t.kernel, t.kernel};
    const Shape out = conv2d(x, Tensor::zeros(shape, DType::bf16), Tensor(), o).shape();
    const Tensor gy = noise(out, 42).to(DType::bf16);
    const Tensor want = conv2d_grad_weight(gy.to(DType::f64), x.to(DType::f64), shape, o);
    for (int round = 0; round < 3; ++round) {
      std::vector<Tensor> used;  // memory that others had
      for (int64_t n = 16; n < int64_t{1} << 20; n = n * 9 / 8 + 1)
        used.push_back(Tensor::full({n}, std::nan("")));
      used.clear();
      EXPECT_LT(error(conv2d_grad_weight(gy, x, shape, o), want), 1e-2)
          << shape.to_string() << " on " << x.shape().to_string() << " stride " << t.stride;
    }
  }
}

TEST(Conv2d, InputGradientsAddToWhatIsThere) {
  for (const int64_t channels : {3, 8, 32})  // images, one block, several
    for (const int64_t stride : {1, 2})
      for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
        const Shape shape{2, channels, 7, 6};
        const Conv2dOptions o(stride, 1);
        const std::string where = str(name_of(dtype), " stride ", stride, " channels ", channels);
        const Tensor w = noise({16, channels, 3, 3}, 21).to(dtype),
                     gy = noise(conv2d(Tensor::zeros(shape, dtype), w, Tensor(), o).shape(), 22)
                              .to(dtype);
        const Tensor sum = noise(shape, 23).to(dtype), before = sum.clone();
        const Tensor want = add(conv2d_grad_input(gy, w, shape, o), sum);
        EXPECT_LT(error(conv2d_grad_input(gy, w, shape, o, sum), want), 1e-6) << where;
        EXPECT_EQ(error(sum, before), 0) << "somebody else holds it: " << where;
        EXPECT_LT(error(conv2d_grad_input(gy, w, shape, o, sum.clone()), want), 1e-6) << where;
        const auto blocked = [&] { return sum.to(preferred_layout({}, dtype, channels)).clone(); };
        EXPECT_LT(error(conv2d_grad_input(gy, w, shape, o, blocked()), want), 1e-6) << where;
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
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d(Tensor::zeros({2, 0, 8, 8}), Tensor::zeros({16, 0, 3, 3}), Tensor());
              }),
              HasSubstr("needs at least one channel, got 0 input"));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ConvFusion f;
    f.residual = Tensor::zeros({4, 16, 6, 6}, dtype);
    EXPECT_THAT(message<ShapeError>(
                    [&] { conv2d(x.to(dtype), ok.to(dtype), Tensor(), Conv2dOptions(), f); }),
                HasSubstr("residual needs shape [2, 16, 6, 6], got [4, 16, 6, 6]"));
  }
  EXPECT_THAT(message<ShapeError>([&] { conv2d(Tensor(), ok, Tensor()); }),
              HasSubstr("input is undefined"));
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d_grad_input(Tensor::zeros({2, 16, 8, 8}), ok, x.shape());
              }),
              HasSubstr("grad_output needs shape [2, 16, 6, 6], got [2, 16, 8, 8]"));
  EXPECT_THAT(message<ShapeError>([&] {
                conv2d_grad_input(Tensor::zeros({2, 16, 6, 6}), ok, x.shape(), {},
                                  Tensor::zeros({2, 32, 6, 6}));
              }),
              HasSubstr("sum needs shape [2, 32, 8, 8] and the dtype and device"));
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

// Casts, layout reorders and elementwise ops against plain loops.
#include "tensor/ops/elementwise.h"

#include <gmock/gmock.h>

#include <limits>

#include "tensor/kernels/functors.h"
#include "tensor/ops/cast.h"
#include "tensor/parallel.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Cast, FloatToIntegerTruncatesAndNeverOverflows) {
  const Tensor x = Tensor::from<double>({1.9, -1.9, 0.5, 1e30, -1e30, kNan, kInf}, {7});
  const auto i = x.to(DType::i64).to_vector<int64_t>();
  EXPECT_EQ(i, (std::vector<int64_t>{1, -1, 0, INT64_MAX, INT64_MIN, 0, INT64_MAX}));
  EXPECT_EQ(Tensor::from<float>({3.7f, 255.0f, 0.0f}, {3}).to(DType::u8).to_vector<uint8_t>(),
            (std::vector<uint8_t>{3, 255, 0}));
}

TEST(Cast, BoolIsNotZero) {
  const Tensor x = Tensor::from<float>({0.0f, -0.0f, 0.25f, -3.0f}, {4});
  EXPECT_EQ(values(x.to(DType::boolean)), (Values{0, 0, 1, 1}));
  EXPECT_EQ(values(x.to(DType::bf16).to(DType::boolean)), (Values{0, 0, 1, 1}));
}

TEST(Cast, Bf16RoundsToNearestEven) {
  const Tensor x = Tensor::from<float>({1.00390625f, 3.14159f, -2.71828f, 1e-3f}, {4});
  EXPECT_EQ(values(x.to(DType::bf16)), (Values{1.0, 3.140625, -2.71875, 9.994506835937500e-04}));
}

TEST(Cast, EveryPairOfTypesKeepsSmallIntegers) {
  const std::vector<DType> all{DType::f32, DType::f64, DType::bf16,   DType::i64,
                               DType::i32, DType::u8,  DType::boolean};
  for (DType from : all)
    for (DType to : all) {
      const Tensor x = Tensor::from<double>({0, 1, 1, 0, 1}, {5}).to(from).to(to);
      EXPECT_EQ(x.dtype(), to);
      EXPECT_EQ(values(x), (Values{0, 1, 1, 0, 1})) << name_of(from) << " " << name_of(to);
    }
}

TEST(Cast, UnitImages) {
  std::vector<uint8_t> all(256);
  for (size_t i = 0; i < 256; ++i) all[i] = static_cast<uint8_t>(i);
  const Tensor bytes = Tensor::from(all, {1, 1, 16, 16});
  EXPECT_EQ(unit_to_u8(u8_to_unit(bytes)).to_vector<uint8_t>(), all);
  const Tensor x = Tensor::from<float>({-1.0f, 0.5f, 0.998f, 2.0f, NAN}, {5});
  EXPECT_EQ(unit_to_u8(x, true).to_vector<uint8_t>(), (std::vector<uint8_t>{0, 128, 254, 255, 0}));
  EXPECT_EQ(unit_to_u8(x, false).to_vector<uint8_t>(), (std::vector<uint8_t>{0, 127, 254, 255, 0}));
  EXPECT_THAT(error_of<DTypeError>([&] { u8_to_unit(x); }), HasSubstr("u8_to_unit"));
}

TEST(ToLayout, EveryPairKeepsTheLogicalOrder) {
  for (int64_t c : channel_counts())
    for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::u8}) {
      const Shape shape{3, c, 5, 7};
      const Tensor x = mul(steps(shape), 4.0).to(DType::i64).to(dtype);
      const Values want = values(x);
      for (Layout a : layouts(c))
        for (Layout b : layouts(c)) {
          const Tensor y = x.to(a).to(b);
          EXPECT_EQ(y.layout(), b);
          EXPECT_EQ(values(y), want) << shape << " " << name_of(a) << " " << name_of(b);
        }
    }
}

TEST(ToLayout, MemoryOrderIsTheDocumentedOne) {
  const int64_t n = 2, c = 2 * kChannelBlock, h = 3, w = 2;
  const Tensor x = sample({n, c, h, w}, 1, DType::f32);
  const float *p = x.data<float>(), *last = nullptr, *blocked = nullptr;
  const Tensor tl = x.to(Layout::channels_last), tb = x.to(Layout::blocked);
  last = tl.data<float>();
  blocked = tb.data<float>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < c; ++k)
      for (int64_t q = 0; q < h * w; ++q) {
        const float v = p[(i * c + k) * h * w + q];
        EXPECT_EQ(last[(i * h * w + q) * c + k], v);
        EXPECT_EQ(
            blocked[((i * (c / kChannelBlock) + k / kChannelBlock) * h * w + q) * kChannelBlock +
                    k % kChannelBlock],
            v);
      }
}

TEST(ToLayout, Errors) {
  EXPECT_THAT(error_of<ShapeError>([] {
                to_layout(Tensor::zeros({2, 3, 4, 4}), Layout::blocked);
              }),
              HasSubstr("to_layout: layout blocked needs channels divisible by"));
  EXPECT_THAT(error_of<ShapeError>([] { to_layout(Tensor::zeros({4}), Layout::channels_last); }),
              HasSubstr("needs rank 4"));
}

struct UnaryCase {
  const char* name;
  std::function<Tensor(const Tensor&)> op;
  std::function<double(double)> reference;
  bool positive = false;
};

TEST(Unary, EveryOpInEveryTypeAndLayout) {
  const std::vector<UnaryCase> cases{
      {"add", [](const Tensor& x) { return add(x, 1.5); }, [](double v) { return v + 1.5; }},
      {"mul", [](const Tensor& x) { return mul(x, -2.0); }, [](double v) { return v * -2; }},
      {"neg", neg, [](double v) { return -v; }},
      {"exp", exp, [](double v) { return std::exp(v); }},
      {"log", log, [](double v) { return std::log(v); }, true},
      {"sqrt", sqrt, [](double v) { return std::sqrt(v); }, true},
      {"square", square, [](double v) { return v * v; }},
      {"abs", abs, [](double v) { return std::fabs(v); }},
      {"sign", sign, [](double v) { return v > 0   ? 1.0
                                           : v < 0 ? -1.0
                                                   : 0.0; }},
      {"clamp", [](const Tensor& x) { return clamp(x, -0.5, 0.75); },
       [](double v) { return std::min(std::max(v, -0.5), 0.75); }},
      {"relu", relu, [](double v) { return v > 0 ? v : 0; }},
      {"leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.2); },
       [](double v) { return v > 0 ? v : 0.2 * v; }},
      {"sigmoid", sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); }},
      {"tanh", tanh, [](double v) { return std::tanh(v); }},
      {"erf", erf, [](double v) { return std::erf(v); }},
  };
  for (const UnaryCase& c : cases)
    for (DType dtype : {DType::f32, DType::f64, DType::bf16})
      for (int64_t channels : {int64_t{3}, kChannelBlock}) {
        const Shape shape{2, channels, 3, 5};
        Tensor x = steps(shape, dtype);
        if (c.positive) x = add(abs(x), 0.25);
        Values want = values(x);
        for (double& v : want) v = c.reference(v);
        for (Layout layout : layouts(channels)) {
          const Tensor y = c.op(x.to(layout));
          EXPECT_EQ(y.layout(), layout) << c.name;
          EXPECT_EQ(y.dtype(), dtype) << c.name;
          EXPECT_TRUE(near(y, want, tolerance(dtype))) << c.name << " " << y.describe();
        }
      }
}

TEST(Unary, LongTensorsAreSplitOverThreads) {
  const int64_t n = 100003;
  const Tensor x = sample({n}, 4, DType::f32);
  const Values in = values(x), out = values(relu(x));
  for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(out[i], in[i] > 0 ? in[i] : 0.0);
}

TEST(Unary, NanGoesThroughAndEmptyTensorsWork) {
  const Tensor x = Tensor::from<float>({NAN}, {1});
  for (const Tensor& y : {relu(x), leaky_relu(x), clamp(x, 0, 1), maximum(x, Tensor::zeros({1})),
                          maximum(Tensor::zeros({1}), x)})
    EXPECT_TRUE(std::isnan(y.item()));
  EXPECT_EQ(relu(Tensor::zeros({0, 4})).shape(), (Shape{0, 4}));
  EXPECT_EQ(add(Tensor::zeros({0, 4}), Tensor::zeros({4})).shape(), (Shape{0, 4}));
}

TEST(Unary, Errors) {
  EXPECT_THAT(error_of<DTypeError>([] { relu(Tensor::zeros({2}, DType::i64)); }),
              HasSubstr("relu: input needs a floating dtype"));
  EXPECT_THAT(error_of<Error>([] { clamp(Tensor::zeros({2}), 2, 1); }),
              HasSubstr("clamp: low 2 exceeds high 1"));
}

// y[i] = f(a, b) with NumPy's rule, written out for rank 4.
Values broadcast_reference(const Tensor& a, const Tensor& b, const Shape& out,
                           const std::function<double(double, double)>& f) {
  const Values va = values(a), vb = values(b);
  const auto at = [&](const Shape& s, const Values& v, const std::vector<int64_t>& index) {
    int64_t offset = 0;
    for (int d = 0; d < s.rank(); ++d) {
      const int64_t i = index[static_cast<size_t>(d + out.rank() - s.rank())];
      offset = offset * s[d] + (s[d] == 1 ? 0 : i);
    }
    return v[static_cast<size_t>(offset)];
  };
  Values y;
  std::vector<int64_t> index(static_cast<size_t>(out.rank()), 0);
  for (int64_t k = 0; k < out.numel(); ++k) {
    int64_t rest = k;
    for (int d = out.rank() - 1; d >= 0; --d) {
      index[static_cast<size_t>(d)] = rest % out[d];
      rest /= out[d];
    }
    y.push_back(f(at(a.shape(), va, index), at(b.shape(), vb, index)));
  }
  return y;
}

TEST(Binary, BroadcastsInEveryLayout) {
  const std::vector<std::pair<const char*, std::function<double(double, double)>>> refs{
      {"add", [](double p, double q) { return p + q; }},
      {"sub", [](double p, double q) { return p - q; }},
      {"mul", [](double p, double q) { return p * q; }},
      {"div", [](double p, double q) { return p / q; }},
      {"maximum", [](double p, double q) { return std::max(p, q); }}};
  using Fn = Tensor (*)(const Tensor&, const Tensor&);
  const std::vector<Fn> ops{add, sub, mul, div, maximum};
  for (int64_t c : {int64_t{3}, 2 * kChannelBlock}) {
    const Shape full{2, c, 3, 5};
    const std::vector<Shape> others{full,      {c, 1, 1},    {1, c, 1, 1}, {},
                                    {1},       {5},          {3, 1},       {2, 1, 1, 1},
                                    {c, 3, 5}, {1, c, 3, 1}, {2, 1, 3, 5}};
    for (const Shape& other : others)
      for (size_t k = 0; k < ops.size(); ++k)
        for (DType dtype : {DType::f32, DType::f64}) {
          const Tensor a = sample(full, 1, dtype), b = add(sample(other, 2, dtype), 4.0);
          const Values ab = broadcast_reference(a, b, full, refs[k].second);
          const Values ba = broadcast_reference(b, a, full, refs[k].second);
          for (Layout layout : layouts(c)) {
            const Tensor y = ops[k](a.to(layout), b);
            EXPECT_EQ(y.shape(), full);
            EXPECT_TRUE(near(y, ab, tolerance(dtype))) << refs[k].first << other << y.describe();
            const double tol = k == 3 ? 1e-3 : tolerance(dtype);  // divided by values near zero
            EXPECT_TRUE(near(ops[k](b, a.to(layout)), ba, tol)) << refs[k].first << other;
          }
        }
  }
}

TEST(Binary, PerChannelOperandKeepsTheLayout) {
  const Tensor x = sample({2, kChannelBlock, 3, 3}, 3, DType::f32).to(Layout::blocked);
  EXPECT_EQ(mul(x, Tensor::full({kChannelBlock, 1, 1}, 2.0)).layout(), Layout::blocked);
  EXPECT_EQ(add(Tensor::full({1, kChannelBlock, 1, 1}, 2.0), x).layout(), Layout::blocked);
  EXPECT_EQ(add(x, Tensor::scalar(1.0)).layout(), Layout::blocked);
  EXPECT_EQ(add(x, x.plain()).layout(), Layout::blocked);
}

TEST(Binary, RankTwoColumns) {
  const Tensor x = sample({5, 13}, 1), b = sample({13}, 2);
  EXPECT_TRUE(near(add(x, b),
                   broadcast_reference(x, b, {5, 13}, [](double p, double q) { return p + q; }),
                   1e-14));
  const Tensor one = sample({5, 1}, 3);
  EXPECT_TRUE(near(mul(x, one),
                   broadcast_reference(x, one, {5, 13}, [](double p, double q) { return p * q; }),
                   1e-14));
}

TEST(Binary, Errors) {
  const std::string text = error_of<ShapeError>([] {
    add(Tensor::zeros({2, 3}), Tensor::zeros({4}));
  });
  EXPECT_THAT(text, HasSubstr("add"));
  EXPECT_THAT(text, HasSubstr("[2, 3]"));
  EXPECT_THAT(text, HasSubstr("[4]"));
  EXPECT_THAT(error_of<DTypeError>([] { mul(Tensor::zeros({2}), Tensor::zeros({2}, DType::f64)); }),
              HasSubstr("mul: a and b need equal dtypes"));
  EXPECT_THAT(error_of<ShapeError>([] { relu_grad(Tensor::zeros({2}), Tensor::zeros({3})); }),
              HasSubstr("relu_grad: gy and y need equal shapes"));
}

TEST(Gradients, OfActivationsMatchNumericDerivatives) {
  const Tensor x = sample({3, 4}, 7), g = sample({3, 4}, 8);
  EXPECT_TRUE(matches_numeric(relu, x, g, relu_grad(g, relu(x))));
  EXPECT_TRUE(matches_numeric([](const Tensor& t) { return leaky_relu(t, 0.2); }, x, g,
                              leaky_relu_grad(g, leaky_relu(x, 0.2), 0.2)));
  EXPECT_TRUE(matches_numeric(sigmoid, x, g, sigmoid_grad(g, sigmoid(x))));
  EXPECT_TRUE(matches_numeric(tanh, x, g, tanh_grad(g, tanh(x))));
}

TEST(Compare, EqualLessWhere) {
  const Tensor a = Tensor::from<int64_t>({1, 2, 3}, {3}), b = Tensor::from<int64_t>({1, 3, 2}, {3});
  EXPECT_EQ(values(equal(a, b)), (Values{1, 0, 0}));
  EXPECT_EQ(values(less(a, b)), (Values{0, 1, 0}));
  EXPECT_EQ(values(where(less(a, b), a, b)), (Values{1, 2, 2}));
  const Tensor x = sample({2, kChannelBlock, 2, 2}, 1, DType::f32);
  const Tensor y = sample({2, kChannelBlock, 2, 2}, 2, DType::f32);
  EXPECT_EQ(values(where(less(x.to(Layout::blocked), y), x, y.to(Layout::channels_last))),
            values(neg(maximum(neg(x), neg(y)))));
  EXPECT_THAT(error_of<DTypeError>([&] { where(x, x, y); }),
              HasSubstr("condition needs dtype bool"));
}

TEST(Compare, AllFinite) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (double bad : {kInf, -kInf, kNan})
      for (int64_t at : {int64_t{0}, int64_t{70000}}) {
        Tensor x = Tensor::full({70001}, 3e38, dtype);
        EXPECT_TRUE(all_finite(x));
        x.slice(at, at + 1).fill_(bad);
        EXPECT_FALSE(all_finite(x)) << name_of(dtype) << bad;
      }
  EXPECT_TRUE(all_finite(Tensor::zeros({0})));
}

TEST(Compare, IdenticalIsBitwiseAndAllcloseIsNot) {
  const Tensor a = Tensor::from<float>({0.0f, 1.0f}, {2}),
               b = Tensor::from<float>({-0.0f, 1.0f}, {2});
  EXPECT_TRUE(identical(a, a.clone()));
  EXPECT_FALSE(identical(a, b));
  EXPECT_FALSE(identical(a, a.to(DType::f64)));
  EXPECT_TRUE(allclose(a, b, 0, 0));
  EXPECT_TRUE(allclose(Tensor::scalar(100.0), Tensor::scalar(101.0), 0.01, 0));
  EXPECT_FALSE(allclose(Tensor::scalar(100.0), Tensor::scalar(102.0), 0.01, 0));
  const Tensor nan = Tensor::scalar(kNan), inf = Tensor::scalar(kInf);
  EXPECT_FALSE(allclose(nan, nan, 1, 1));
  EXPECT_TRUE(allclose(inf, inf, 0, 0));
  EXPECT_FALSE(allclose(Tensor::scalar(1.0), inf, 1, 1));
  const Tensor x = sample({2, kChannelBlock, 2, 2}, 1, DType::f32);
  EXPECT_TRUE(identical(x, x.to(Layout::blocked)));
}

TEST(InPlace, AddAndMulMoveTheVersion) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const Tensor x = steps({2, kChannelBlock, 3, 3}, dtype).to(Layout::blocked);
    const Tensor y = steps({2, kChannelBlock, 3, 3}, dtype);
    const uint32_t before = x.version();
    add_(x, y, 0.5);
    EXPECT_GT(x.version(), before);
    Values want = values(y);
    for (double& v : want) v *= 1.5;
    EXPECT_TRUE(near(x, want, tolerance(dtype)));
    mul_(x, 2.0);
    for (double& v : want) v *= 2;
    EXPECT_TRUE(near(x, want, tolerance(dtype)));
  }
  EXPECT_THAT(error_of<ShapeError>([] { add_(Tensor::zeros({2}), Tensor::zeros({1})); }),
              HasSubstr("add_: dst and src need equal shapes"));
}

TEST(FastExp, IsWithinTwoUlp) {
  double worst = 0;
  for (double v = -86.9; v < 87.9; v += 0.00137) {
    const float x = static_cast<float>(v);
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(static_cast<double>(FastExpFn()(x)) - exact) / exact);
  }
  EXPECT_LT(worst, 2.4e-7);
  EXPECT_EQ(FastExpFn()(0.0f), 1.0f);
  EXPECT_LT(FastExpFn()(-1000.0f), 1e-37f);
}

TEST(Exp, IsWithinTwoUlpAndReachesZeroAndInfinity) {
  double worst = 0;
  for (double v = -87.3; v < 88.7; v += 0.00137) {
    const float x = static_cast<float>(v);
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(static_cast<double>(ExpFn<float>()(x)) - exact) / exact);
  }
  EXPECT_LT(worst, 2.4e-7);
  const ExpFn<float> f;
  EXPECT_EQ(f(0.0f), 1.0f);
  EXPECT_FLOAT_EQ(f(-95.0f), std::exp(-95.0f));  // subnormal
  EXPECT_EQ(f(-105.0f), 0.0f);
  EXPECT_EQ(f(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isfinite(f(88.72f)));
  EXPECT_EQ(f(88.73f), INFINITY);
  EXPECT_EQ(f(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(f(NAN)));
}

TEST(Log, IsWithinTwoUlpAndKnowsTheLimits) {
  double worst = 0;
  const auto error = [](float x) {
    const double exact = std::log(static_cast<double>(x));
    const double got = static_cast<double>(FastLogFn()(x));
    return exact == 0 ? std::fabs(got) : std::fabs(got - exact) / std::fabs(exact);
  };
  for (double v = -103; v < 88; v += 0.00137)  // from the smallest subnormal numbers on
    worst = std::max(worst, error(static_cast<float>(std::exp(v))));
  for (double v = 0.5; v < 2; v += 0.0000171) worst = std::max(worst, error(static_cast<float>(v)));
  EXPECT_LT(worst, 2.4e-7);
  const FastLogFn f;
  EXPECT_EQ(f(1.0f), 0.0f);
  EXPECT_EQ(f(0.0f), -INFINITY);
  EXPECT_EQ(f(-0.0f), -INFINITY);
  EXPECT_EQ(f(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(f(-1.0f)));
  EXPECT_TRUE(std::isnan(f(-INFINITY)));
  EXPECT_TRUE(std::isnan(f(NAN)));
}

TEST(FastTanh, IsWithinFourUlpWithSignAndLimits) {
  double worst = 0;
  for (double v = -12; v < 12; v += 0.000719) {
    const float x = static_cast<float>(v);
    const double exact = std::tanh(static_cast<double>(x));
    const double got = static_cast<double>(FastTanhFn()(x));
    if (exact != 0) worst = std::max(worst, std::fabs(got - exact) / std::fabs(exact));
  }
  EXPECT_LT(worst, 4.8e-7);
  EXPECT_EQ(FastTanhFn()(100.0f), 1.0f);
  EXPECT_EQ(FastTanhFn()(-100.0f), -1.0f);
  EXPECT_EQ(FastTanhFn()(1e-20f), 1e-20f);
  EXPECT_TRUE(std::isnan(FastTanhFn()(NAN)));
  EXPECT_EQ(sigmoid(Tensor::from<float>({100.0f}, {1})).item(), 1.0);
  EXPECT_LT(sigmoid(Tensor::from<float>({-100.0f}, {1})).item(), 1e-37);
  EXPECT_TRUE(std::isnan(sigmoid(Tensor::from<float>({NAN}, {1})).item()));
}

TEST(FastErf, IsWithinEightUlpWithSignAndLimits) {
  double worst = 0;
  for (double v = -6; v < 6; v += 0.000719) {
    const float x = static_cast<float>(v);
    const double exact = std::erf(static_cast<double>(x));
    const double got = static_cast<double>(FastErfFn()(x));
    if (exact != 0) worst = std::max(worst, std::fabs(got - exact) / std::fabs(exact));
  }
  EXPECT_LT(worst, 9.6e-7);
  EXPECT_EQ(FastErfFn()(100.0f), 1.0f);
  EXPECT_EQ(FastErfFn()(-INFINITY), -1.0f);
  EXPECT_FLOAT_EQ(FastErfFn()(1e-20f), 1.1283792e-20f);
  EXPECT_TRUE(std::isnan(FastErfFn()(NAN)));
}

TEST(Threads, ResultsDoNotDependOnTheirNumber) {
  const int threads = num_threads();
  const Tensor x = sample({64, kChannelBlock, 17, 19}, 3, DType::f32).to(Layout::blocked);
  set_num_threads(1);
  const Tensor one = tanh(mul(x, x));
  set_num_threads(3);
  EXPECT_TRUE(identical(one, tanh(mul(x, x))));
  set_num_threads(threads);
}

TEST(ParallelFor, WhatAChunkThrowsReachesTheCaller) {
  const int threads = num_threads();
  set_num_threads(2);
  EXPECT_THROW(parallel_for(100, 1,
                            [](int64_t begin, int64_t) {
                              if (begin > 0) throw DataError("the second chunk");
                            }),
               DataError);
  set_num_threads(threads);
}

}  // namespace
}  // namespace mtcki

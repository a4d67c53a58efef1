// Matrix products and the linear layer: built-in and oneDNN kernels against a triple loop.
#include "tensor/ops/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;

Tensor noise(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f64);
  double* p = t.data<double>();
  uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (int64_t i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    p[i] = static_cast<float>(static_cast<double>(state >> 11) * 0x1.0p-52 - 1.0);
  }
  return t;
}

std::vector<double> naive(const std::vector<double>& a, const std::vector<double>& b, int64_t batch,
                          int64_t m, int64_t n, int64_t k, bool ta, bool tb) {
  std::vector<double> c(static_cast<size_t>(batch * m * n));
  for (int64_t g = 0; g < batch; ++g)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l)
          sum += a[static_cast<size_t>(g * m * k + (ta ? l * m + i : i * k + l))] *
                 b[static_cast<size_t>(g * k * n + (tb ? j * k + l : l * n + j))];
        c[static_cast<size_t>((g * m + i) * n + j)] = sum;
      }
  return c;
}

double error(const Tensor& got, const std::vector<double>& want) {
  const auto a = got.to(DType::f64).to_vector<double>();
  EXPECT_EQ(a.size(), want.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (a[i] - want[i]) * (a[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(difference / (size + 1e-300));
}

class KernelSetting {
 public:
  explicit KernelSetting(CpuKernels kernels) : before_(math_settings().cpu_kernels) {
    set_cpu_kernels(kernels);
  }
  ~KernelSetting() { set_cpu_kernels(before_); }

 private:
  CpuKernels before_;
};

TEST(Matmul, KernelsAgreeWithTripleLoop) {
  struct Size {
    int64_t batch, m, n, k;
  };
  std::vector<Size> sizes{{1, 1, 1, 1},      {1, 2, 3, 4},       {1, 6, 16, 8},   {1, 7, 17, 9},
                          {1, 64, 64, 64},   {1, 128, 10, 512},  {1, 5, 300, 33}, {1, 200, 3, 257},
                          {1, 97, 131, 600}, {1, 150, 1100, 40}, {3, 9, 20, 11},  {1, 13, 31, 1},
                          {1, 1, 1000, 64},  {1, 257, 1, 64},    {2, 0, 3, 4},    {1, 3, 4, 0}};
  for (const Size& s : sizes)
    for (int trans = 0; trans < 4; ++trans) {
      const bool ta = trans & 1, tb = trans & 2;
      Shape as = ta ? Shape{s.k, s.m} : Shape{s.m, s.k},
            bs = tb ? Shape{s.n, s.k} : Shape{s.k, s.n};
      if (s.batch > 1) {
        as = Shape{s.batch, as[0], as[1]};
        bs = Shape{s.batch, bs[0], bs[1]};
      }
      const Tensor a = noise(as, 1), b = noise(bs, 2);
      const auto want =
          naive(a.to_vector<double>(), b.to_vector<double>(), s.batch, s.m, s.n, s.k, ta, tb);
      const std::string where = str(s.batch, " ", s.m, " ", s.n, " ", s.k, " trans ", trans);
      EXPECT_LT(error(matmul(a, b, ta, tb), want), 1e-14) << where << " f64";
      std::vector<CpuKernels> settings{CpuKernels::automatic, CpuKernels::builtin};
      if (onednn_available()) settings.push_back(CpuKernels::onednn);
      for (CpuKernels kernels : settings) {
        const KernelSetting setting(kernels);
        EXPECT_LT(error(matmul(a.to(DType::f32), b.to(DType::f32), ta, tb), want), 1e-6) << where;
      }
    }
}

TEST(Linear, ValuesAndGradients) {
  const Tensor x = noise({9, 20}, 3), w = noise({7, 20}, 4), bias = noise({7}, 5);
  const Tensor gy = noise({9, 7}, 6);
  const auto xv = x.to_vector<double>(), wv = w.to_vector<double>(), gv = gy.to_vector<double>();
  auto y = naive(xv, wv, 1, 9, 7, 20, false, true);
  EXPECT_LT(error(linear(x, w, Tensor()), y), 1e-14);
  for (size_t i = 0; i < y.size(); ++i) y[i] += bias.to_vector<double>()[i % 7];
  std::vector<double> gb(7);
  for (size_t i = 0; i < gv.size(); ++i) gb[i % 7] += gv[i];
  for (DType dtype : {DType::f64, DType::f32}) {
    const double tolerance = dtype == DType::f64 ? 1e-14 : 1e-6;
    const auto t = [&](const Tensor& u) { return u.to(dtype); };
    EXPECT_LT(error(linear(t(x), t(w), t(bias)), y), tolerance);
    EXPECT_LT(error(linear_grad_input(t(gy), t(w)), naive(gv, wv, 1, 9, 20, 7, false, false)),
              tolerance);
    EXPECT_LT(error(linear_grad_weight(t(gy), t(x)), naive(gv, xv, 1, 7, 20, 9, true, false)),
              tolerance);
    EXPECT_LT(error(linear_grad_bias(t(gy)), gb), tolerance);
  }
}

TEST(Matmul, Bf16ComputesInF32) {
  const Tensor a = noise({5, 30}, 7).to(DType::bf16), b = noise({30, 4}, 8).to(DType::bf16);
  const Tensor c = matmul(a, b);
  EXPECT_EQ(c.dtype(), DType::bf16);
  EXPECT_LT(error(c, naive(a.to(DType::f64).to_vector<double>(),
                           b.to(DType::f64).to_vector<double>(), 1, 5, 4, 30, false, false)),
            4e-3);
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

TEST(Matmul, ErrorTexts) {
  const Tensor a = Tensor::zeros({4, 5}), b = Tensor::zeros({6, 7});
  EXPECT_THAT(message<ShapeError>([&] { matmul(a, b); }),
              HasSubstr("matmul: inner sizes differ: op(a) is 4x5, op(b) is 6x7"));
  EXPECT_THAT(message<ShapeError>([&] {
                matmul(a, Tensor::zeros({2, 5, 3}));
              }),
              HasSubstr("a and b need rank 2, or both rank 3"));
  EXPECT_THAT(message<ShapeError>([&] { linear(a, b, Tensor()); }),
              HasSubstr("linear: weight expects 7 features, input has 5"));
  EXPECT_THAT(message<ShapeError>([&] {
                linear(a, Tensor::zeros({3, 5}), Tensor::zeros({4}));
              }),
              HasSubstr("bias needs shape [3]"));
  EXPECT_THAT(message<DTypeError>([&] {
                matmul(a, Tensor::zeros({5, 2}, DType::f64));
              }),
              HasSubstr("equal dtypes"));
  EXPECT_THAT(message<ShapeError>([&] {
                matmul(Tensor::zeros({2, 3, 4}), Tensor::zeros({3, 4, 5}));
              }),
              HasSubstr("a has batch 2, b has batch 3"));
}

}  // namespace
}  // namespace mtcki

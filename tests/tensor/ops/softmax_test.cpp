// Softmax, row losses and InfoNCE against hand-worked values, PyTorch's numbers, plain loops and
// numerical derivatives.
#include "tensor/ops/softmax.h"

#include <gmock/gmock.h>

#include <numeric>

#include "tensor/ops/contrast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

Tensor labels_of(std::vector<int64_t> v) {
  const int64_t n = static_cast<int64_t>(v.size());
  return Tensor::from(v, {n});
}

TEST(Softmax, RowsAndLogarithm) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Shape& shape : {Shape{3, 7}, Shape{1, 1}, Shape{2, 3, 5}, Shape{4}, Shape{0, 4}}) {
      const Tensor x = mul(sample(shape, 1, dtype), 3.0);
      const Values v = values(x);
      const int64_t n = shape[-1];
      Values p, logp;
      for (size_t row = 0; row < v.size(); row += static_cast<size_t>(n)) {
        double total = 0;
        for (int64_t j = 0; j < n; ++j) total += std::exp(v[row + static_cast<size_t>(j)]);
        for (int64_t j = 0; j < n; ++j) {
          p.push_back(std::exp(v[row + static_cast<size_t>(j)]) / total);
          logp.push_back(v[row + static_cast<size_t>(j)] - std::log(total));
        }
      }
      EXPECT_TRUE(near(softmax(x), p, tolerance(dtype))) << shape;
      EXPECT_TRUE(near(log_softmax(x), logp, tolerance(dtype))) << shape;
      EXPECT_EQ(softmax(x).shape(), shape);
    }
}

TEST(Softmax, HugeLogitsDoNotOverflow) {
  const Tensor x = Tensor::from<float>({1e4f, 1e4f, -1e4f}, {1, 3});
  EXPECT_TRUE(near(softmax(x), {0.5, 0.5, 0}, 1e-7));
  EXPECT_TRUE(near(log_softmax(x), {-std::log(2), -std::log(2), -2e4 - std::log(2)}, 1e-6));
  EXPECT_TRUE(near(cross_entropy_rows(x, labels_of({2})), {2e4 + std::log(2)}, 1e-6));
}

TEST(Softmax, Gradients) {
  const Tensor x = sample({3, 5}, 1), g = sample({3, 5}, 2);
  EXPECT_TRUE(matches_numeric(softmax, x, g, softmax_grad(g, softmax(x))));
  EXPECT_TRUE(matches_numeric(log_softmax, x, g, log_softmax_grad(g, log_softmax(x))));
}

TEST(CrossEntropy, EqualsPyTorch) {
  const Tensor x = steps({3, 4}), t = labels_of({1, 3, 0});
  EXPECT_TRUE(near(cross_entropy_rows(x, t), {0.516999725, 1.07505905, 1.45013269}, 1e-8));
  EXPECT_TRUE(near(cross_entropy_rows(x, t, 0.1), {0.635749725, 1.13130905, 1.46263269}, 1e-8));
  const Tensor g = Tensor::from<double>({1, 2, -0.5}, {3});
  EXPECT_TRUE(
      near(cross_entropy_rows_grad(g, x, t, 0.1),
           {0.0786226104, -0.328693049, 0.194369068, 0.0557013702, 0.826418234, 0.27241625,
            0.0686103099, -1.16744479, 0.345230418, -0.0306410683, -0.235759707, -0.0788296424},
           1e-8));
}

TEST(CrossEntropy, HandWorkedClassPrior) {
  // The two teachers of the method's table, y = [0, 1]: mean 0.5166783; their mean logits
  // 0.4472802.
  const Tensor a = Tensor::from<double>({2, 0, 0, 1}, {2, 2});
  const Tensor b = Tensor::from<double>({1, 0, 1, 0}, {2, 2});
  const Tensor y = labels_of({0, 1});
  const double each =
      0.5 * (mean(cross_entropy_rows(a, y)).item() + mean(cross_entropy_rows(b, y)).item());
  EXPECT_NEAR(each, 0.5166783, 5e-8);
  EXPECT_NEAR(mean(cross_entropy_rows(mul(add(a, b), 0.5), y)).item(), 0.4472802, 5e-8);
}

TEST(CrossEntropy, GradientsTypesAndErrors) {
  const Tensor x = sample({4, 6}, 1), t = labels_of({5, 0, 2, 2}), g = sample({4}, 2);
  for (double e : {0.0, 0.3})
    EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return cross_entropy_rows(z, t, e); }, x, g,
                                cross_entropy_rows_grad(g, x, t, e)));
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Tensor loss = cross_entropy_rows(x.to(dtype), t);
    EXPECT_EQ(loss.dtype(), dtype);
    EXPECT_TRUE(near(loss, cross_entropy_rows(x, t), tolerance(dtype)));
    EXPECT_TRUE(near(cross_entropy_rows_grad(g.to(dtype), x.to(dtype), t),
                     cross_entropy_rows_grad(g, x, t), tolerance(dtype)));
  }
  EXPECT_EQ(cross_entropy_rows(Tensor::zeros({0, 3}), labels_of({})).shape(), (Shape{0}));
  EXPECT_THAT(error_of<Error>([&] {
                cross_entropy_rows(x, labels_of({0, 6, 0, 0}));
              }),
              HasSubstr("cross_entropy_rows: label 6 of row 1 is outside 0..5"));
  EXPECT_THAT(error_of<ShapeError>([&] { cross_entropy_rows(x, labels_of({0})); }),
              HasSubstr("labels need one entry per row of logits"));
  EXPECT_THAT(error_of<DTypeError>([&] { cross_entropy_rows(x, Tensor::zeros({4})); }),
              HasSubstr("labels need dtype i64"));
}

TEST(Kl, HandWorkedValues) {
  const Tensor p = Tensor::from<double>({2, 0, 0, 1}, {2, 2});
  const Tensor q = Tensor::from<double>({1, 0, 1, 0}, {2, 2});
  EXPECT_TRUE(near(kl_rows(p, q), {0.0671308, 0.4621172}, 5e-8));
  EXPECT_NEAR(400 * mean(kl_rows(p, q, 20)).item(), 0.3123374, 5e-8);
  EXPECT_NEAR(mean(js_rows(p, q, 3)).item(), 0.0084758, 5e-8);
  EXPECT_NEAR(1 - mean(js_rows(p, q, 3)).item() / std::log(2), 0.9877720, 5e-8);
  // 20^2 * 1e-3 in f32: the loss of a training run keeps five digits.
  EXPECT_NEAR(400 * mean(kl_rows(p.to(DType::f32), q.to(DType::f32), 20)).item(), 0.3123374, 1e-4);
}

TEST(Kl, EqualsPyTorch) {
  const Tensor p = steps({3, 4});
  Values flipped;
  const Values v = values(p);
  for (size_t row = 0; row < 12; row += 4)
    for (size_t j = 4; j-- > 0;) flipped.push_back(v[row + j]);
  const Tensor q = Tensor::from(flipped, {3, 4}), g = Tensor::from<double>({1, 2, -0.5}, {3});
  EXPECT_TRUE(near(kl_rows(p, q, 3), {0.0352253625, 0.023608846, 0.0861350548}, 1e-9));
  EXPECT_TRUE(near(
      kl_rows_grad_q(g, p, q, 3),
      {-0.00533456356, -0.0338917216, 0.0338917216, 0.00533456356, -0.0169218555, -0.0429872281,
       0.0429872281, 0.0169218555, 0.00339895093, -0.0241244512, 0.0241244512, -0.00339895093},
      1e-9));
}

TEST(Kl, GradientsOfBothSidesAndOfJs) {
  const Tensor p = sample({3, 5}, 1), q = sample({3, 5}, 2), g = sample({3}, 3);
  for (double t : {1.0, 4.0}) {
    EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return kl_rows(z, q, t); }, p, g,
                                kl_rows_grad_p(g, p, q, t)));
    EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return kl_rows(p, z, t); }, q, g,
                                kl_rows_grad_q(g, p, q, t)));
    EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return js_rows(z, q, t); }, p, g,
                                js_rows_grad_p(g, p, q, t)));
    EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return js_rows(p, z, t); }, q, g,
                                js_rows_grad_p(g, q, p, t)));
  }
}

TEST(Kl, ExtremesStayFinite) {
  const Tensor p = Tensor::from<float>({500, -500}, {1, 2}),
               q = Tensor::from<float>({-500, 500}, {1, 2});
  const Tensor g = Tensor::full({1}, 1.0);
  EXPECT_NEAR(js_rows(p, q, 1).item(), std::log(2), 1e-6);
  EXPECT_NEAR(kl_rows(p, q, 1).item(), 1000, 1e-3);
  EXPECT_NEAR(kl_rows(p, p, 1).item(), 0, 1e-7);
  for (const Tensor& t :
       {kl_rows_grad_p(g, p, q, 1), kl_rows_grad_q(g, p, q, 1), js_rows_grad_p(g, p, q, 1)})
    EXPECT_TRUE(all_finite(t));
  EXPECT_THAT(error_of<Error>([&] { kl_rows(p, q, 0); }),
              HasSubstr("kl_rows: temperature needs to be positive, got 0"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                js_rows(p, Tensor::zeros({1, 3}), 1);
              }),
              HasSubstr("js_rows: p_logits and q_logits need equal shapes"));
}

TEST(Normalize, EqualsPyTorchAndNumeric) {
  const Tensor x = steps({2, 3});
  EXPECT_TRUE(near(normalize(x), {-0.365148372, 0.912870929, 0.182574186, -0.6, 0.8, 0}, 1e-8));
  const Tensor g = Tensor::from<double>({-0.75, 1, 0, -0.5, 1.25, 0.25}, {2, 3});
  EXPECT_TRUE(near(normalize_grad(g, x),
                   {-0.231260635, -0.0608580619, -0.158230961, 0.224, 0.168, 0.2}, 1e-8));
  EXPECT_TRUE(
      matches_numeric([](const Tensor& z) { return normalize(z); }, x, g, normalize_grad(g, x)));
  const Tensor zero = Tensor::zeros({1, 3}, DType::f64);
  EXPECT_TRUE(near(normalize(zero), {0, 0, 0}, 0));
  EXPECT_TRUE(all_finite(normalize_grad(Tensor::full({1, 3}, 1.0, DType::f64), zero)));
}

// ---- InfoNCE ----

TEST(InfoNce, HandWorkedValues) {
  const Tensor u = Tensor::from<double>({1, 0, 0, 1}, {2, 2});
  const Tensor v = Tensor::from<double>({1, 0, 0.6, 0.8}, {2, 2});
  for (DType dtype : {DType::f64, DType::f32}) {
    const Tensor rows = info_nce_rows(u.to(dtype), v.to(dtype), 0.5).rows;
    EXPECT_TRUE(near(rows, {0.3711007, 0.1839007}, 2e-7));
    EXPECT_NEAR(mean(rows).item(), 0.2775007, 2e-7);
    EXPECT_NEAR(sum(rows).item(), 0.5550014, 2e-7);
  }
}

struct NceReference {
  Values rows, gu, gv;
};
NceReference info_nce_reference(const Tensor& tu, const Tensor& tv, const Values& g, double tau) {
  const Values u = values(tu), v = values(tv);
  const size_t a = static_cast<size_t>(tu.size(0)), n = static_cast<size_t>(tv.size(0)),
               d = static_cast<size_t>(tu.size(1));
  NceReference r{Values(a), Values(u.size(), 0.0), Values(v.size(), 0.0)};
  for (size_t i = 0; i < a; ++i) {
    Values s(n, 0.0);
    for (size_t j = 0; j < n; ++j)
      for (size_t k = 0; k < d; ++k) s[j] += u[i * d + k] * v[j * d + k] / tau;
    const double most = *std::max_element(s.begin(), s.end());
    double total = 0;
    for (double e : s) total += std::exp(e - most);
    r.rows[i] = most + std::log(total) - s[i];
    for (size_t j = 0; j < n; ++j) {
      const double w = g[i] / tau * (std::exp(s[j] - most) / total - (j == i ? 1 : 0));
      for (size_t k = 0; k < d; ++k) {
        r.gu[i * d + k] += w * v[j * d + k];
        r.gv[j * d + k] += w * u[i * d + k];
      }
    }
  }
  return r;
}

TEST(InfoNce, EqualsTheReferenceOverSeveralChunks) {
  // 70,000 columns make chunks of 16 rows: 37 rows are three chunks.
  for (auto [a, j, d, dtype] :
       std::vector<std::tuple<int64_t, int64_t, int64_t, DType>>{{5, 9, 4, DType::f64},
                                                                 {5, 9, 4, DType::f32},
                                                                 {37, 70000, 3, DType::f32},
                                                                 {1, 1, 1, DType::f64},
                                                                 {40, 43, 17, DType::f32}}) {
    const Tensor u = normalize(sample({a, d}, 1, dtype)), v = normalize(sample({j, d}, 2, dtype));
    const Tensor g = sample({a}, 3, dtype);
    const NceReference want = info_nce_reference(u, v, values(g), 0.1);
    const InfoNce got = info_nce_rows(u, v, 0.1);
    const double tol = dtype == DType::f64 ? 1e-12 : 1e-4;
    EXPECT_TRUE(near(got.rows, want.rows, tol));
    EXPECT_TRUE(near(info_nce_grad_u(g, u, v, got.lse, 0.1), want.gu, tol));
    EXPECT_TRUE(near(info_nce_grad_v(g, u, v, got.lse, 0.1), want.gv, tol));
  }
}

TEST(InfoNce, GradientsMatchNumericDerivatives) {
  const Tensor u = sample({4, 3}, 1), v = sample({6, 3}, 2), g = sample({4}, 3);
  const Tensor lse = info_nce_rows(u, v, 0.5).lse;
  EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return info_nce_rows(z, v, 0.5).rows; }, u, g,
                              info_nce_grad_u(g, u, v, lse, 0.5)));
  EXPECT_TRUE(matches_numeric([&](const Tensor& z) { return info_nce_rows(u, z, 0.5).rows; }, v, g,
                              info_nce_grad_v(g, u, v, lse, 0.5)));
}

TEST(InfoNce, EmptyAndErrors) {
  const Tensor v = Tensor::zeros({4, 3}), none = Tensor::zeros({0, 3});
  EXPECT_EQ(info_nce_rows(none, v, 1).rows.shape(), (Shape{0}));
  EXPECT_TRUE(near(info_nce_grad_v(Tensor::zeros({0}), none, v, Tensor::zeros({0}), 1),
                   Values(12, 0.0), 0));
  const Tensor u = Tensor::zeros({2, 3});
  EXPECT_THAT(error_of<ShapeError>([&] {
                info_nce_rows(u, Tensor::zeros({4, 5}), 1);
              }),
              HasSubstr("info_nce_rows: u has 3 columns, v has 5"));
  EXPECT_THAT(error_of<ShapeError>([&] { info_nce_rows(v, u, 1); }),
              HasSubstr("u has 4 rows, v has 2: row i of v is row i's positive"));
  EXPECT_THAT(error_of<Error>([&] { info_nce_rows(u, v, 0); }),
              HasSubstr("tau needs to be positive"));
}

}  // namespace
}  // namespace mtcki

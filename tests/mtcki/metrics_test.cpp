// Eigen-decomposition, Fréchet distance, inception score, diversity against closed forms.
#include "mtcki/evaluation/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "mtcki/evaluation/symmetric_eigen.h"
#include "mtcki/training/evaluate.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"

namespace mtcki {
namespace {

Tensor random(const Shape& shape, uint64_t step) {
  return randn(shape, Rng{11, rng_stream("metrics_test"), step}, DType::f64);
}

TEST(SymmetricEigen, TwoByTwo) {
  const SymmetricEigen e = symmetric_eigen(Tensor::from(std::vector<double>{2, 1, 1, 2}, {2, 2}));
  EXPECT_NEAR(e.values.to_vector<double>()[0], 1, 1e-14);
  EXPECT_NEAR(e.values.to_vector<double>()[1], 3, 1e-14);
}

TEST(SymmetricEigen, ReconstructsAndIsOrthogonal) {
  for (const int64_t n : {1, 2, 3, 17, 64}) {
    const Tensor r = random({n, n}, static_cast<uint64_t>(n));
    const Tensor a = matmul(r, r, true, false);
    const SymmetricEigen e = symmetric_eigen(a);
    const Tensor back = matmul(e.vectors, mul(e.vectors, e.values.reshape({n, 1})), true, false);
    EXPECT_TRUE(allclose(back, a, 1e-10, 1e-10)) << n;
    const Tensor identity = matmul(e.vectors, e.vectors, false, true);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        EXPECT_NEAR(identity.data<double>()[i * n + j], i == j ? 1.0 : 0.0, 1e-10);
    EXPECT_TRUE(allclose(matmul(symmetric_sqrt(a), symmetric_sqrt(a)), a, 1e-9, 1e-9)) << n;
  }
}

// Of few images, or where most features are dead: all but the first eigenvalues are rounding.
TEST(SymmetricEigen, LowRank) {
  for (uint64_t seed = 0; seed < 20; ++seed)
    for (const int64_t rank : {2, 5}) {
      const Tensor rows = randn({rank, 64}, {seed, 1, 0}, DType::f64);
      const auto values =
          symmetric_eigen(matmul(rows, rows, true, false)).values.to_vector<double>();
      double trace = 0;
      for (int64_t i = 0; i < 64; ++i) {
        trace += values[static_cast<size_t>(i)];
        if (i < 64 - rank) {
          EXPECT_NEAR(values[static_cast<size_t>(i)], 0, 1e-12) << seed;
        }
      }
      EXPECT_NEAR(trace, sum(mul(rows, rows)).item(), 1e-11) << seed;
    }
}

TEST(SymmetricEigen, DegenerateInput) {
  EXPECT_EQ(symmetric_eigen(Tensor::zeros({5, 5}, DType::f64)).values.to_vector<double>(),
            std::vector<double>(5, 0.0));
  EXPECT_THROW(symmetric_eigen(Tensor::zeros({2, 3}, DType::f64)), ShapeError);
  EXPECT_THROW(symmetric_eigen(Tensor::full({3, 3}, std::nan(""), DType::f64)), NumericError);
}

TEST(Metrics, FrechetDistanceOfDiagonalGaussians) {
  // Σ (m1−m2)² + Σ (√c1 − √c2)²
  const auto stats = [](const std::vector<double>& m, const std::vector<double>& c) {
    FeatureStatistics s;
    s.mean = Tensor::from(m, {2});
    s.covariance = Tensor::from(std::vector<double>{c[0], 0, 0, c[1]}, {2, 2});
    return s;
  };
  EXPECT_NEAR(frechet_distance(stats({0, 1}, {4, 9}), stats({3, 1}, {1, 16})), 9 + 1 + 1, 1e-9);
}

TEST(Metrics, FrechetDistanceProperties) {
  const auto a = feature_statistics(random({200, 8}, 1));
  const auto b = feature_statistics(add(mul(random({150, 8}, 2), 2.0), 1.0));
  EXPECT_NEAR(frechet_distance(a, a), 0, 1e-8);
  EXPECT_NEAR(frechet_distance(a, b), frechet_distance(b, a), 1e-8);
  EXPECT_GT(frechet_distance(a, b), 8);
}

TEST(Metrics, InceptionScore) {
  // Certain and evenly spread over k classes: k. All the same: 1.
  std::vector<double> spread, same;
  for (int i = 0; i < 12; ++i)
    for (int k = 0; k < 4; ++k) {
      spread.push_back(i % 4 == k ? 100 : 0);
      same.push_back(k == 1 ? 100 : 0);
    }
  EXPECT_NEAR(inception_score(Tensor::from(spread, {12, 4})), 4, 1e-9);
  EXPECT_NEAR(inception_score(Tensor::from(same, {12, 4})), 1, 1e-9);
  EXPECT_EQ(class_coverage(Tensor::from(spread, {12, 4})), 100);
  EXPECT_EQ(class_coverage(Tensor::from(same, {12, 4})), 25);
}

TEST(Metrics, PairwiseDiversity) {
  const Tensor x = random({7, 5}, 3);
  const auto v = x.to_vector<double>();
  double cosines = 0;
  for (size_t i = 0; i < 7; ++i)
    for (size_t j = 0; j < 7; ++j) {
      if (i == j) continue;
      double dot = 0, a = 0, b = 0;
      for (size_t k = 0; k < 5; ++k) {
        dot += v[i * 5 + k] * v[j * 5 + k];
        a += v[i * 5 + k] * v[i * 5 + k];
        b += v[j * 5 + k] * v[j * 5 + k];
      }
      cosines += dot / std::sqrt(a * b);
    }
  EXPECT_NEAR(pairwise_diversity(x), 1 - cosines / 42, 1e-10);
  EXPECT_NEAR(pairwise_diversity(Tensor::full({4, 3}, 2.0, DType::f64)), 0, 1e-12);
}

TEST(Metrics, DistinctNeighbours) {
  const Tensor reference = Tensor::from(std::vector<float>{0, 0, 10, 10, 20, 20}, {3, 2});
  const Tensor spread = Tensor::from(std::vector<float>{1, 0, 9, 9, 19, 22}, {3, 2});
  const Tensor same = Tensor::from(std::vector<float>{9, 9, 11, 9, 10, 12}, {3, 2});
  EXPECT_NEAR(distinct_neighbours(spread, reference), 100, 1e-9);
  EXPECT_NEAR(distinct_neighbours(same, reference), 100.0 / 3, 1e-9);
}

TEST(Metrics, AccuracyAndAgreement) {
  const Tensor z = Tensor::from(std::vector<float>{3, 1, 2, 0, 5, 1, 1, 2, 3}, {3, 3});
  const Accuracy a = accuracy(z, Tensor::from(std::vector<int64_t>{0, 2, 2}, {3}));
  EXPECT_NEAR(a.top1, 200.0 / 3, 1e-9);
  EXPECT_NEAR(a.top5, 100, 1e-9);
  EXPECT_NEAR(agreement(z, z), 100, 1e-9);
  EXPECT_NEAR(agreement(z, neg(z)), 0, 1e-9);
  EXPECT_NEAR(js_loyalty(z, z), 100, 1e-4);
}

}  // namespace
}  // namespace mtcki

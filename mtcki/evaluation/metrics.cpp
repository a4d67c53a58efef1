#include "mtcki/evaluation/metrics.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "mtcki/evaluation/symmetric_eigen.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

FeatureStatistics feature_statistics(const Tensor& features) {
  const int64_t n = features.size(0);
  if (features.rank() != 2 || n < 2)
    throw ShapeError(str("feature_statistics: needs [N >= 2, d], got ", features.describe()));
  const Tensor x = features.to(DType::f64);
  FeatureStatistics out;
  out.n = n;
  out.mean = mean(x, {0});
  const Tensor centred = sub(x, out.mean);
  out.covariance = mul(matmul(centred, centred, true, false), 1.0 / static_cast<double>(n - 1));
  return out;
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const Tensor root = symmetric_sqrt(a.covariance);
  const Tensor middle = matmul(matmul(root, b.covariance), root);
  const auto eigenvalues = symmetric_eigen(middle).values.to_vector<double>();
  double cross = 0;
  for (const double v : eigenvalues) cross += std::sqrt(std::max(0.0, v));
  const int64_t d = a.mean.size(0);
  double trace = 0;
  const double* ca = a.covariance.data<double>();
  const double* cb = b.covariance.data<double>();
  for (int64_t i = 0; i < d; ++i) trace += ca[i * d + i] + cb[i * d + i];
  const double distance = norm(sub(a.mean, b.mean)).item();
  return distance * distance + trace - 2.0 * cross;
}

double inception_score(const Tensor& logits) {
  const Tensor log_p = log_softmax(logits.to(DType::f64));
  const Tensor p = exp(log_p);
  const Tensor log_marginal = log(add(mean(p, {0}), 1e-300));
  return std::exp(sum(mul(p, sub(log_p, log_marginal))).item() /
                  static_cast<double>(logits.size(0)));
}

double pairwise_diversity(const Tensor& features) {
  const double n = static_cast<double>(features.size(0));
  if (n < 2) return 0;
  // Σ_{i≠j} u_i·u_j = ‖Σ u‖² − n: all pairs for the price of one sum.
  const double total = norm(sum(normalize(features.to(DType::f64)), {0})).item();
  return 1.0 - (total * total - n) / (n * (n - 1));
}

double class_coverage(const Tensor& logits) {
  const int64_t k = logits.size(1);
  std::vector<int64_t> count(static_cast<size_t>(k), 0);
  for (const int64_t y : argmax(logits, 1).to_vector<int64_t>()) ++count[static_cast<size_t>(y)];
  const double half_share = 0.5 * static_cast<double>(logits.size(0)) / static_cast<double>(k);
  const auto covered = std::count_if(
      count.begin(), count.end(), [&](int64_t c) { return static_cast<double>(c) >= half_share; });
  return 100.0 * static_cast<double>(covered) / static_cast<double>(k);
}

double distinct_neighbours(const Tensor& features, const Tensor& reference) {
  const Tensor x = features.to(DType::f32), r = reference.to(DType::f32);
  // argmin ‖x−r‖² = argmax (x·r − ‖r‖²/2), in pieces of rows.
  const Tensor half = mul(sum(square(r), {1}), 0.5);
  std::set<int64_t> hit;
  constexpr int64_t kRows = 512;
  for (int64_t i = 0; i < x.size(0); i += kRows) {
    const Tensor part = x.slice(i, std::min(x.size(0), i + kRows));
    for (const int64_t j : argmax(sub(matmul(part, r, false, true), half), 1).to_vector<int64_t>())
      hit.insert(j);
  }
  return 100.0 * static_cast<double>(hit.size()) /
         static_cast<double>(std::min(x.size(0), r.size(0)));
}

Described describe(Teacher& classifier, const data::ImageSet& set, int64_t limit) {
  constexpr int64_t kBatch = 250;
  const int64_t n = limit > 0 ? std::min(limit, set.size()) : set.size();
  std::vector<Tensor> features, logits;
  for (int64_t i = 0; i < n; i += kBatch) {
    const Tensor bytes = set.images.slice(i, std::min(n, i + kBatch)).to(classifier.device());
    const auto y = classifier.forward_no_grad(u8_to_unit(bytes));
    features.push_back(y.feature.data().plain().to(Device::cpu()));
    logits.push_back(y.logits.data().to(Device::cpu()));
  }
  return {cat(features), cat(logits)};
}

}  // namespace mtcki

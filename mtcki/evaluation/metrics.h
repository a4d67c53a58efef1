// How good and how varied images are, in the feature and probability space of a held-out classifier
// (docs/method.md): the formulas of FID and IS without Inception weights.
#pragma once

#include <cstdint>

#include "mtcki/networks/teacher.h"

namespace mtcki {

struct FeatureStatistics {
  Tensor mean, covariance;  // f64 [d], [d,d] (unbiased)
  int64_t n = 0;
};
FeatureStatistics feature_statistics(const Tensor& features);  // [N,d], N >= 2

// ‖m₁−m₂‖² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½)
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);
// exp(E KL(p(y|x) ‖ p(y))): between 1 and the number of classes.
double inception_score(const Tensor& logits);
// 1 − mean cosine of all pairs of rows; 0: all equal, about 1: unrelated.
double pairwise_diversity(const Tensor& features);
// Percent of classes that at least half of an even share of the images is recognised as.
double class_coverage(const Tensor& logits);
// Percent of the reference rows that are the nearest (Euclidean) one of some feature row, of the
// most that could be: min(N, R).
double distinct_neighbours(const Tensor& features, const Tensor& reference);

// Features and logits of the first `limit` images of a set, on the CPU.
struct Described {
  Tensor features, logits;
};
Described describe(Teacher& classifier, const data::ImageSet& set, int64_t limit);

}  // namespace mtcki

// Weights of the teachers that rounds learn (Co-Boosting; Dai et al., "Enhancing One-Shot Federated
// Learning Through Data and Ensemble Co-Boosting", ICLR 2024): the ensemble should know the labels of the
// images made so far, of which the last ones were hard for it.
//
//   t = Σ_m w_m z_m / Σ_m w_m;  per batch  w_m <- clip(w_m − μ sign(∂CE(t, y)/∂w_m), 0, 1)
//
// in one shuffled pass over all images in round r > 0, with μ = rounds.weight_step · 0.99^r, from the
// configured weights divided by their sum.
#pragma once

#include <vector>

#include "data/sets/dataset.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

// One batch: logits [B,K] of every teacher, labels i64 [B].
std::vector<double> moved_weights(const std::vector<double>& weights,
                                  const std::vector<Tensor>& logits, const Tensor& labels,
                                  double step);
// The pass; the teachers have the new weights afterwards.
void learn_weights(Teachers& teachers, const data::ImageSet& images, int64_t batch_size,
                   double step, const Rng& order);

}  // namespace mtcki

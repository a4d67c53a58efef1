// (6) Distillation from the fused teachers (docs/method.md):
//
//   L_KD = T² KL( P_T ‖ softmax(z_S/T) ),  batch mean;  no hard labels
//
//   mean     P_T = softmax(Σ_m w_m z_m / T)
//   prob     P_T = Σ_m w_m softmax(z_m / T)
//   conf     mean with ω_m = (1 − softmax_m(CE(z_m, y)))/(M−1) per sample; M = 1: ω = 1. These are
//            the weights of CA-MKD, which sums the divergences to each teacher with them instead
//   entropy  mean with ω_m ∝ exp(−H(softmax z_m)) per sample
#pragma once

#include <vector>

#include "autograd/variable.h"
#include "mtcki/config/config.h"

namespace mtcki {

// Logits whose softmax at temperature T is P_T. logits: [N,K] of every teacher, constants.
// labels (i64 [N]) are used by conf only.
Tensor fused_targets(Fuse mode, const std::vector<Tensor>& logits,
                     const std::vector<double>& weights, double temperature, const Tensor& labels);
// counts [N]: what a row counts in the mean; undefined: 1.
Variable fused_kd(const Tensor& targets, const Variable& student_logits, double temperature,
                  const Tensor& counts = {});
// Images about which teachers differ count less: a_i^exponent over its mean in the batch (of all
// processes), a_i = Σ_m w_m 1[teacher m decides as the targets do].
Tensor agreement_weights(const Tensor& targets, const std::vector<Tensor>& logits,
                         const std::vector<double>& weights, double exponent);

}  // namespace mtcki

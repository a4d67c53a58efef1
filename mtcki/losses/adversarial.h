// (3) Disagreement of student and teachers (docs/method.md), used only while a student trains:
//
//   kl-agree     L_adv = −(T²/B) Σ_i k_i KL(p̄_i ‖ p_{S,i}), logits over T,
//                k_i = 1[argmax p̄_i = argmax p_{S,i}] (CMI)
//   kl-disagree  the same with 1 − k_i: only where the student decides otherwise (DENSE)
//   js           L_adv = 1 − mean_i JS(p̄^(3), p_S^(3)) / ln 2
//   adi          L_adv = 1 − clamp(J, 0, 1), J = (KL(M‖P) + KL(M‖Q))/2 of P = p̄^(3), Q = p_S^(3) and
//                M = (P + Q)/2, each clamped into [0.01, 0.99] (DeepInversion's code, where the
//                arguments stand the other way round than in a Jensen-Shannon divergence)
//   each         the weighted average of either over teachers instead of the fused logits
//
// Nothing is detached except k: the images get a gradient through teachers and student.
#pragma once

#include <vector>

#include "autograd/variable.h"
#include "mtcki/config/config.h"

namespace mtcki {

Variable adversarial(AdvMode mode, const Variable& teacher_logits, const Variable& student_logits,
                     double temperature = 1);
Variable adversarial_each(AdvMode mode, const std::vector<Variable>& teacher_logits,
                          const std::vector<double>& weights, const Variable& student_logits,
                          double temperature = 1);

}  // namespace mtcki

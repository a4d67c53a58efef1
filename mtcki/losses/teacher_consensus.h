// (5) Teachers should agree on an image (docs/method.md, off by default):
//
//   L_con = Σ_m w_m KL(p_m ‖ p̃),  p̃ = Σ_m w_m p_m     (= H(p̃) − Σ_m w_m H(p_m)), batch mean
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace mtcki {

Variable teacher_consensus(const std::vector<Variable>& logits, const std::vector<double>& weights);

}  // namespace mtcki

// (2) Class prior (docs/method.md): the teachers must see the intended labels y.
//
//   each   L_cls = Σ_m w_m CE(z_m, y)        every teacher is confident
//   ens    L_cls = CE(Σ_m w_m z_m, y); with a focus h each sample counts (1 − p_y)^h, a constant, so
//          that the ones that are hard lead (Co-Boosting; Dai et al., ICLR 2024)
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace mtcki {

Variable class_prior_each(const std::vector<Variable>& logits, const std::vector<double>& weights,
                          const Tensor& labels);
Variable class_prior_ens(const std::vector<Variable>& logits, const std::vector<double>& weights,
                         const Tensor& labels, double focus = 0);

}  // namespace mtcki

// (5) Priors on the pixels (DeepInversion; off by default). x [N,C,H,W] in [0,1]:
//
//   TV = Σ over the 4 directions (→, ↓, ↙, ↘) of mean |difference of neighbours|
//   TV_l2 = Σ over them of ‖difference of neighbours‖₂, one norm over the whole batch
//   L2 = ‖x‖₂
#pragma once

#include "autograd/variable.h"

namespace mtcki {

Variable total_variation(const Variable& x);
Variable total_variation_l2(const Variable& x);
Variable image_norm(const Variable& x);

}  // namespace mtcki

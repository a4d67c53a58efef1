// (5) Priors on the pixels (DeepInversion; off by default). x [N,C,H,W] in [0,1]:
//
//   TV = Σ over the 4 directions (→, ↓, ↙, ↘) of mean |difference of neighbours|
//   L2 = ‖x‖₂
#pragma once

#include "autograd/variable.h"

namespace mtcki {

Variable total_variation(const Variable& x);
Variable image_norm(const Variable& x);

}  // namespace mtcki

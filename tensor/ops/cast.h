// Conversions of element type and memory layout. Reached as Tensor::to; Tensor::copy_ uses them.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

// Any dtype to any dtype. Float to integer truncates toward zero; to bool: != 0.
Tensor cast(const Tensor& x, DType dtype);
// Reorders a rank-4 tensor. blocked needs C % kChannelBlock == 0.
Tensor to_layout(const Tensor& x, Layout layout);
// images u8 [N,C,H,W] -> f32 in [0,1], x/255.
Tensor u8_to_unit(const Tensor& images);
// f32 in [0,1] -> u8. `round`: floor(255 clamp(x) + 0.5); else floor(255 clamp(x)) (CMI's pool).
Tensor unit_to_u8(const Tensor& images, bool round = true);

}  // namespace mtcki

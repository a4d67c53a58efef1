// CPU kernels of cast.h: checked inputs, allocated outputs.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

void cast_cpu(const Tensor& x, const Tensor& y);       // same shape and layout, other dtype
void to_layout_cpu(const Tensor& x, const Tensor& y);  // same shape and dtype, other layout
void u8_to_unit_cpu(const Tensor& x, const Tensor& y);
void unit_to_u8_cpu(const Tensor& x, const Tensor& y, bool round);

}  // namespace mtcki

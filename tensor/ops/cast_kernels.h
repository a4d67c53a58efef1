// Kernels of cast.h and Tensor::fill_: checked inputs, allocated outputs.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

void cast_cpu(const Tensor& x, const Tensor& y);       // same shape and layout, other dtype
void to_layout_cpu(const Tensor& x, const Tensor& y);  // same shape and dtype, other layout
void u8_to_unit_cpu(const Tensor& x, const Tensor& y);
void unit_to_u8_cpu(const Tensor& x, const Tensor& y, bool round);

void fill_cuda(const Tensor& x, double value);
void cast_cuda(const Tensor& x, const Tensor& y);
void to_layout_cuda(const Tensor& x, const Tensor& y);  // plain and channels_last
void u8_to_unit_cuda(const Tensor& x, const Tensor& y);
void unit_to_u8_cuda(const Tensor& x, const Tensor& y, bool round);

}  // namespace mtcki

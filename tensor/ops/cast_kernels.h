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
// Per image, y [columns][rows] = x [rows][columns] transposed; elements of 1, 2, 4 or 8 bytes.
void transpose_cuda(const void* x, void* y, int64_t images, int64_t rows, int64_t columns,
                    size_t element);
void u8_to_unit_cuda(const Tensor& x, const Tensor& y);
void unit_to_u8_cuda(const Tensor& x, const Tensor& y, bool round);

}  // namespace mtcki

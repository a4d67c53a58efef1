// Kernels of cast.h and Tensor::fill_: checked inputs, allocated outputs.
#pragma once

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

MTCKI_KERNEL(cast, const Tensor& x, const Tensor& y);  // same shape and layout, other dtype
// Same shape and dtype, other layout; CUDA knows plain and channels_last.
MTCKI_KERNEL(to_layout, const Tensor& x, const Tensor& y);
MTCKI_KERNEL(u8_to_unit, const Tensor& x, const Tensor& y);
MTCKI_KERNEL(unit_to_u8, const Tensor& x, const Tensor& y, bool round);

void fill_cuda(const Tensor& x, double value);
// Per image, y [columns][rows] = x [rows][columns] transposed; elements of 1, 2, 4 or 8 bytes.
void transpose_cuda(const void* x, void* y, int64_t images, int64_t rows, int64_t columns,
                    size_t element);

}  // namespace mtcki

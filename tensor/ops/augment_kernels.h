// Kernels of augment.h: checked inputs, allocated outputs; plain on the CPU. Undefined offset: the
// centre; undefined flip: none.
#pragma once

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

MTCKI_KERNEL(pad_crop_flip, const Tensor& x, const Tensor& y, int64_t pad, const Tensor& offset,
             const Tensor& flip);
MTCKI_KERNEL(pad_crop_flip_grad, const Tensor& gy, const Tensor& gx, int64_t pad,
             const Tensor& offset, const Tensor& flip);
MTCKI_KERNEL(resized_crop_flip, const Tensor& x, const Tensor& y, const Tensor& box,
             const Tensor& flip);
MTCKI_KERNEL(resized_crop_flip_grad, const Tensor& gy, const Tensor& gx, const Tensor& box,
             const Tensor& flip);
// (x - mean[c])/std[c]; mean undefined: x/std[c]. Any layout.
MTCKI_KERNEL(normalize_channels, const Tensor& x, const Tensor& mean, const Tensor& std,
             const Tensor& y);
// y f32 plain (CPU), or any float type and layout (CUDA). index i64, mean and std f32 or undefined.
MTCKI_KERNEL(gather_augment, const Tensor& images, const Tensor& index, int64_t pad,
             const Tensor& offset, const Tensor& flip, const Tensor& mean, const Tensor& std,
             const Tensor& y);

}  // namespace mtcki

// Kernels of augment.h: checked inputs, allocated outputs; plain on the CPU. Undefined offset: the
// centre; undefined flip: none.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

void pad_crop_flip_cpu(const Tensor& x, const Tensor& y, int64_t pad, const Tensor& offset,
                       const Tensor& flip);
void pad_crop_flip_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t pad, const Tensor& offset,
                            const Tensor& flip);
void resized_crop_flip_cpu(const Tensor& x, const Tensor& y, const Tensor& box, const Tensor& flip);
void resized_crop_flip_grad_cpu(const Tensor& gy, const Tensor& gx, const Tensor& box,
                                const Tensor& flip);
// (x - mean[c])/std[c]; mean undefined: x/std[c]. Any layout.
void normalize_channels_cpu(const Tensor& x, const Tensor& mean, const Tensor& std,
                            const Tensor& y);
// y f32 plain (CPU), or any float type and layout (CUDA). index i64, mean and std f32 or undefined.
void gather_augment_cpu(const Tensor& images, const Tensor& index, int64_t pad,
                        const Tensor& offset, const Tensor& flip, const Tensor& mean,
                        const Tensor& std, const Tensor& y);

void pad_crop_flip_cuda(const Tensor& x, const Tensor& y, int64_t pad, const Tensor& offset,
                        const Tensor& flip);
void pad_crop_flip_grad_cuda(const Tensor& gy, const Tensor& gx, int64_t pad, const Tensor& offset,
                             const Tensor& flip);
void resized_crop_flip_cuda(const Tensor& x, const Tensor& y, const Tensor& box,
                            const Tensor& flip);
void resized_crop_flip_grad_cuda(const Tensor& gy, const Tensor& gx, const Tensor& box,
                                 const Tensor& flip);
void normalize_channels_cuda(const Tensor& x, const Tensor& mean, const Tensor& std,
                             const Tensor& y);
void gather_augment_cuda(const Tensor& images, const Tensor& index, int64_t pad,
                         const Tensor& offset, const Tensor& flip, const Tensor& mean,
                         const Tensor& std, const Tensor& y);

}  // namespace mtcki

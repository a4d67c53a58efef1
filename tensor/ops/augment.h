// Differentiable augmentation of image batches [N,C,H,W], per-sample parameters. All are linear in
// x; the _grad functions are their exact adjoints. Results are plain on the CPU; on the GPU they
// keep the layout, and parameters out of range read nothing outside the image.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

// Pad by `pad` zeros on each side, crop HxW at offset[n] = (dy, dx) in [0, 2 pad], then mirror
// horizontally where flip[n]. offset i32 [N,2], flip bool [N] (both may be undefined: centre,
// none).
//   y[n,c,i,j] = x[n,c,i+dy-pad,j'+dx-pad], j' = flip ? W-1-j : j, zero outside.
Tensor pad_crop_flip(const Tensor& x, int64_t pad, const Tensor& offset, const Tensor& flip);
Tensor pad_crop_flip_grad(const Tensor& gy, int64_t pad, const Tensor& offset, const Tensor& flip);

// Bilinear resize of the per-sample box (y0, x0, height, width) in pixels, box f32 [N,4], to oh x
// ow, then mirror where flip[n]. Sample positions are pixel centres (align_corners = false):
//   sy = y0 + (i + 0.5) * height/oh - 0.5, clamped to the image.
Tensor resized_crop_flip(const Tensor& x, const Tensor& box, const Tensor& flip, int64_t oh,
                         int64_t ow);
Tensor resized_crop_flip_grad(const Tensor& gy, const Tensor& box, const Tensor& flip,
                              const Shape& x_shape);

// (x - mean[c]) / std[c].
Tensor normalize_channels(const Tensor& x, const Tensor& mean, const Tensor& std);
Tensor normalize_channels_grad(const Tensor& gy, const Tensor& std);

// A training batch from images u8 [M,C,H,W] (plain) that stay on the device, in one pass: image
// index[n] (i64 [N]), bytes/255, pad_crop_flip as above, then (value - mean[c]) / std[c]. mean and
// std f32 [C], both undefined: no normalisation. Pixels outside the image are byte 0, normalised.
// In f32 the bits are those of the separate steps and of data::Loader. Not differentiable.
Tensor gather_augment(const Tensor& images, const Tensor& index, int64_t pad, const Tensor& offset,
                      const Tensor& flip, const Tensor& mean, const Tensor& std, DType dtype,
                      Layout layout);

}  // namespace mtcki

// Pooling and nearest upsampling of [N,C,H,W], any layout (kept). Gradients gather: their order of
// additions is fixed on every device.
#pragma once

#include <array>

#include "tensor/tensor.h"

namespace mtcki {

struct Pool2dOptions {
  std::array<int64_t, 2> kernel{2, 2};
  std::array<int64_t, 2> stride{2, 2};
  std::array<int64_t, 2> padding{0, 0};
  bool ceil_mode = false;
  bool count_include_pad = true;  // avg_pool2d
  Pool2dOptions() = default;
  explicit Pool2dOptions(int64_t k) : kernel{k, k}, stride{k, k} {}
  Pool2dOptions(int64_t k, int64_t s, int64_t p) : kernel{k, k}, stride{s, s}, padding{p, p} {}
};

struct MaxPool {
  Tensor y;
  Tensor index;  // i32, y's shape and layout: position h*W+w of the maximum (the first one) in its
                 // plane
};
MaxPool max_pool2d(const Tensor& x, const Pool2dOptions& o);
Tensor max_pool2d_grad(const Tensor& gy, const Tensor& index, const Shape& x_shape,
                       const Pool2dOptions& o);
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& o);
Tensor avg_pool2d_grad(const Tensor& gy, const Shape& x_shape, const Pool2dOptions& o);
// Output [N,C,oh,ow]; bin i covers rows floor(i*H/oh) .. ceil((i+1)*H/oh).
Tensor adaptive_avg_pool2d(const Tensor& x, int64_t oh, int64_t ow);
Tensor adaptive_avg_pool2d_grad(const Tensor& gy, const Shape& x_shape);
// Global average pool straight to [N,C] (plain), the border where blocked layouts end.
Tensor global_avg_pool(const Tensor& x);
// x_layout: the layout the gradient is wanted in.
Tensor global_avg_pool_grad(const Tensor& gy, const Shape& x_shape, Layout x_layout);

// y[n,c,i,j] = x[n,c,floor(i*H/oh),floor(j*W/ow)] (PyTorch's interpolate, mode nearest).
Tensor upsample_nearest2d(const Tensor& x, int64_t oh, int64_t ow);
Tensor upsample_nearest2d_grad(const Tensor& gy, const Shape& x_shape);

}  // namespace mtcki

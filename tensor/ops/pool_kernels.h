// Kernels of pool.h: checked inputs, allocated non-empty outputs, x and y in the same layout.
#pragma once

#include "tensor/host_device.h"
#include "tensor/ops/on_device.h"
#include "tensor/ops/pool.h"
#include "tensor/tensor.h"

namespace mtcki {

// The input rows (or columns) that one output row averages. `padded` counts padding as well.
struct PoolWindow {
  int64_t begin = 0, end = 0, padded = 0;
};
struct PoolRange {
  int64_t begin, end;
};

// Windows along one axis: `size` inputs, `out` outputs. Adaptive ones follow from the two.
struct PoolAxis {
  int64_t size = 0, out = 0, kernel = 1, stride = 1, padding = 0;
  bool adaptive = false;

  MTCKI_HD PoolWindow window(int64_t i) const {
    if (adaptive) {
      const int64_t begin = i * size / out, end = ((i + 1) * size + out - 1) / out;
      return {begin, end, end - begin};
    }
    const int64_t begin = i * stride - padding;
    const int64_t end = begin + kernel < size + padding ? begin + kernel : size + padding;
    return {begin > 0 ? begin : 0, end < size ? end : size, end - begin};
  }
  // The outputs whose window holds input s.
  MTCKI_HD PoolRange outputs_of(int64_t s) const {
    if (adaptive) return {s * out / size, ((s + 1) * out + size - 1) / size};
    const int64_t past = s + padding - kernel;  // windows that start there or before have ended
    const int64_t begin = past < 0 ? 0 : past / stride + 1, end = (s + padding) / stride + 1;
    return {begin, end < out ? end : out};
  }
};

template <class T>
MTCKI_HD T window_weight(const PoolWindow& row, const PoolWindow& col, bool count_padding) {
  const int64_t n =
      count_padding ? row.padded * col.padded : (row.end - row.begin) * (col.end - col.begin);
  return T(1) / static_cast<T>(n);
}

MTCKI_KERNEL(max_pool, const Tensor& x, const Tensor& y, const Tensor& index, const PoolAxis& rows,
             const PoolAxis& cols);
MTCKI_KERNEL(max_pool_grad, const Tensor& gy, const Tensor& index, const Tensor& gx,
             const PoolAxis& rows, const PoolAxis& cols);
// Means over rows.window(i) x cols.window(j); divided by the padded size or by the number of
// elements inside.
MTCKI_KERNEL(window_mean, const Tensor& x, const Tensor& y, const PoolAxis& rows,
             const PoolAxis& cols, bool count_padding);
MTCKI_KERNEL(window_mean_grad, const Tensor& gy, const Tensor& gx, const PoolAxis& rows,
             const PoolAxis& cols, bool count_padding);
// y [N,C]
MTCKI_KERNEL(global_avg_pool, const Tensor& x, const Tensor& y);
// gy [N,C]
MTCKI_KERNEL(global_avg_pool_grad, const Tensor& gy, const Tensor& gx);
MTCKI_KERNEL(upsample_nearest, const Tensor& x, const Tensor& y);
MTCKI_KERNEL(upsample_nearest_grad, const Tensor& gy, const Tensor& gx);

}  // namespace mtcki

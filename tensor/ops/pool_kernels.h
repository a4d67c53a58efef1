// CPU kernels of pool.h: checked inputs, allocated outputs, x and y in the same layout.
#pragma once

#include <vector>

#include "tensor/ops/pool.h"
#include "tensor/tensor.h"

namespace mtcki {

// The input rows (or columns) that one output row averages. `padded` counts padding as well.
struct PoolWindow {
  int64_t begin = 0, end = 0, padded = 0;
};

void max_pool_cpu(const Tensor& x, const Tensor& y, const Tensor& index, const Pool2dOptions& o);
void max_pool_grad_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx);
// Means over rows[i] x cols[j]; divided by the padded size or by the number of elements inside.
void window_mean_cpu(const Tensor& x, const Tensor& y, const std::vector<PoolWindow>& rows,
                     const std::vector<PoolWindow>& cols, bool count_padding);
void window_mean_grad_cpu(const Tensor& gy, const Tensor& gx, const std::vector<PoolWindow>& rows,
                          const std::vector<PoolWindow>& cols, bool count_padding);
void global_avg_pool_cpu(const Tensor& x, const Tensor& y);         // y [N,C]
void global_avg_pool_grad_cpu(const Tensor& gy, const Tensor& gx);  // gy [N,C]
void upsample_nearest_cpu(const Tensor& x, const Tensor& y);
void upsample_nearest_grad_cpu(const Tensor& gy, const Tensor& gx);

}  // namespace mtcki

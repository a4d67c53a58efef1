// Kernels of index.h: checked inputs, allocated outputs. Most of them move bytes and do not care
// for the dtype.
#pragma once

#include <vector>

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

// rows of `row` bytes: dst row i of pitch dst_pitch <- src row i of pitch src_pitch.
MTCKI_KERNEL(copy_rows, const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch,
             int64_t row, int64_t rows);
// dst row i of `pitch` bytes <- src row i of `row` bytes from `at` on, zeros around it.
void pad_rows_cpu(const char* src, int64_t row, char* dst, int64_t pitch, int64_t at, int64_t rows);
// dst row i += src row i, of `row` elements; dst has `pitch` of them.
void add_to_rows_cpu(const float* src, int64_t row, float* dst, int64_t pitch, int64_t rows);
// dst row i <- src row index[i]. limit: the rows that index may name; on CUDA one outside is a row
// of zeros.
MTCKI_KERNEL(gather_rows, const char* src, char* dst, const int64_t* index, int64_t row,
             int64_t rows, int64_t limit);
// gx = 0, then gx row index[i] += gy row i in the order of i; plain.
MTCKI_KERNEL(add_rows, const Tensor& gy, const Tensor& index, const Tensor& gx);
// Plain tensors; CUDA takes channels_last for x of permute and both sides of subsample_pad, too.
MTCKI_KERNEL(permute, const Tensor& x, const Tensor& y, const std::vector<int>& order);
void channel_shuffle_cpu(const Tensor& x, const Tensor& y, int64_t groups);
MTCKI_KERNEL(one_hot, const Tensor& labels, const Tensor& y);
// y and gx are written whole.
MTCKI_KERNEL(subsample_pad, const Tensor& x, const Tensor& y, int64_t stride, int64_t before);
MTCKI_KERNEL(subsample_pad_grad, const Tensor& gy, const Tensor& gx, int64_t stride,
             int64_t before);

}  // namespace mtcki

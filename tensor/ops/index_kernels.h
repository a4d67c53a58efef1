// Kernels of index.h: checked inputs, allocated outputs. Most of them move bytes and do not care
// for the dtype.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// rows of `row` bytes: dst row i of pitch dst_pitch <- src row i of pitch src_pitch.
void copy_rows_cpu(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t row,
                   int64_t rows);
// dst row i <- src row index[i], or, with scatter, dst row index[i] <- src row i.
void gather_rows_cpu(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                     int64_t limit, bool scatter);
// gx = 0, then gx row index[i] += gy row i in the order of i; plain.
void add_rows_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx);
void permute_cpu(const Tensor& x, const Tensor& y, const std::vector<int>& order);
void one_hot_cpu(const Tensor& labels, const Tensor& y);
// Plain tensors; y and gx are written whole.
void subsample_pad_cpu(const Tensor& x, const Tensor& y, int64_t stride, int64_t before);
void subsample_pad_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before);

// The same on a GPU. limit: rows that index may name; a row index[i] outside is zero in a gather
// and dropped by a scatter. x of permute and both sides of subsample_pad may be channels_last.
void copy_rows_cuda(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t row,
                    int64_t rows);
void gather_rows_cuda(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                      int64_t limit, bool scatter);
void add_rows_cuda(const Tensor& gy, const Tensor& index, const Tensor& gx);
void permute_cuda(const Tensor& x, const Tensor& y, const std::vector<int>& order);
void one_hot_cuda(const Tensor& labels, const Tensor& y);
void subsample_pad_cuda(const Tensor& x, const Tensor& y, int64_t stride, int64_t before);
void subsample_pad_grad_cuda(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before);

}  // namespace mtcki

// CPU kernels of index.h: checked inputs, allocated outputs. Most of them move bytes and do not
// care for the dtype.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// rows of `row` bytes: dst row i of pitch dst_pitch <- src row i of pitch src_pitch.
void copy_rows_cpu(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t row,
                   int64_t rows);
// dst row i <- src row index[i], or, with scatter, dst row index[i] <- src row i.
void gather_rows_cpu(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                     bool scatter);
void permute_cpu(const Tensor& x, const Tensor& y, const std::vector<int>& order);
void one_hot_cpu(const Tensor& labels, const Tensor& y);  // y zeroed
// Plain tensors. y is written whole; its gradient adds into nothing else (gx zeroed).
void subsample_pad_cpu(const Tensor& x, const Tensor& y, int64_t stride, int64_t before);
void subsample_pad_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before);

}  // namespace mtcki

// Copying index ops: concatenation, row gathers, transposition, channel padding. Indices and labels
// outside their range are errors on the CPU; on a GPU, where nobody reads them on the host, such a
// row is zero.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// Along `dim`; equal other dimensions. Rank-4 inputs of different layouts are joined in plain
// layout, unless dim is 0; so are blocked ones along their height or width.
Tensor cat(const std::vector<Tensor>& parts, int dim = 0);
// The part [begin, end) of dimension `dim`, copied (dim 0 of a plain tensor: use Tensor::slice).
Tensor narrow(const Tensor& x, int dim, int64_t begin, int64_t end);
// Zero outside the part. Plus sum, of x's shape, where given; its memory is taken if nobody else
// holds it.
Tensor narrow_grad(const Tensor& gy, const Shape& x_shape, int dim, int64_t begin, Tensor sum = {});
// rows x[index[i]] of the first dimension; index i64 [n]. Any dtype; layout of x is kept.
Tensor index_select(const Tensor& x, const Tensor& index);
// Rows may repeat: their gradients add up, in the order of the index.
Tensor index_select_grad(const Tensor& gy, const Tensor& index, const Shape& x_shape);
Tensor transpose(const Tensor& x);                               // rank 2
Tensor permute(const Tensor& x, const std::vector<int>& order);  // any rank, plain result
// Channel i * groups + g of y [N,C,H,W] is channel g * C/groups + i of x: the channels as a matrix of
// `groups` rows, transposed. The gradient is that with C/groups. The layout is kept on the CPU.
Tensor channel_shuffle(const Tensor& x, int64_t groups);
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype = DType::f32);

// Option-A shortcut (He et al. 2016, CIFAR form): y[n,c,h,w] = x[n, c-before, h*stride, w*stride],
// zero for channels outside x. x [N,C,H,W] -> [N, before+C+after, ceil(H/stride), ceil(W/stride)].
Tensor subsample_pad_channels(const Tensor& x, int64_t stride, int64_t before, int64_t after);
Tensor subsample_pad_channels_grad(const Tensor& gy, const Shape& x_shape, int64_t stride,
                                   int64_t before);

}  // namespace mtcki

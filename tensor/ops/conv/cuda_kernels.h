// Kernels of convolution and bias on CUDA (cuda_kernels.cu): checked arguments, allocated results.
#pragma once

#include "tensor/ops/conv/kernels.h"
#include "tensor/tensor.h"

namespace mtcki::conv_cuda {

// Rows of the column matrix are output pixels of `images` images, columns
// (group, tap, channel of the group).
void unfold(const ConvProblem& d, const Tensor& x, int64_t images, const Tensor& columns);
// Adjoint of unfold: every input element gathers its taps in a fixed order.
void fold(const ConvProblem& d, const Tensor& columns, int64_t images, const Tensor& gx);
// [k, c, r, s], plain or channels_last, to [k, r*s, padded], zero in the channels beyond c.
void weight_to_ohwi(const Tensor& w, const Tensor& out);
// [k, r*s, padded] to a channels_last [k, c, r, s], without the channels beyond c.
void drop_weight_padding(const Tensor& in, const Tensor& gw);
// channels_last x [n,c,h,w] into the first c channels of y, the others 0.
void pad_channels(const Tensor& x, const Tensor& y);
// y += bias per channel; rank 4 or [N, C], bias f32 or y's dtype.
void add_bias(const Tensor& y, const Tensor& bias);
// Sums over everything but the channel of channels_last or [N, C], in two stages of fixed order.
void channel_sums(const Tensor& g, const Tensor& out);

}  // namespace mtcki::conv_cuda

// Internal: bf16 3x3 convolutions of 64 channels on CUDA by the warpgroup products of sm_90
// (wgmma), where cuDNN's kernels, made for more channels, take twice as long as the tensor cores.
// Sums are f32, in a fixed order.
#pragma once

#include "tensor/ops/conv/kernels.h"
#include "tensor/tensor.h"

namespace mtcki::conv_cuda::wgmma {

// 3x3 with padding 1, stride 1, no groups, no dilation, on a device of compute capability 9.0. What
// is read (x, gy) has 64 channels, what is written (y, gx) a multiple of 64.
bool supports_forward(const ConvProblem& d);
bool supports_grad_input(const ConvProblem& d);
// Whether to use it without timing: with fewer pixels most of the time is loading the weights.
inline bool preferred(const ConvProblem& d) { return d.n * d.h * d.w >= 32768; }
// All channels_last; w OHWI, bf16. residual: added to y, may be undefined; add: to what gx holds.
void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& residual,
             const Tensor& y);
void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                bool add);

}  // namespace mtcki::conv_cuda::wgmma

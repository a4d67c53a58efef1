// Internal: bf16 convolutions with few channels on CUDA, where cuDNN is many times slower than
// memory: own tensor core kernels. Sums are f32, in an order that is fixed for a device.
#pragma once

#include "tensor/ops/conv/kernels.h"
#include "tensor/tensor.h"

namespace mtcki::conv_cuda::narrow {

// ---- weight gradients (conv_narrow_cuda.cu)

// 1x1 without padding and 3x3 with padding 1, stride 1 or 2, no groups, no dilation; at most 8
// input channels or a multiple of 16, a multiple of 16 output channels; both at most 128. With
// stride 1 also at most 8 output channels and a multiple of 16 input channels.
bool supports(const ConvProblem& d);
// Whether to use it without timing: where cuDNN's kernels, made for many channels, waste most.
inline bool preferred(const ConvProblem& d) {
  return d.c <= 32 || d.k <= 32 || d.c * d.k <= 64 * 64;
}

// How the work is divided: a block takes `out` x `in` channels with all taps, and one of `pieces`
// parts of the pixels. 16, 32 or 64 output channels; 8 (for at most 8), 16 or 32 input channels.
struct Division {
  int out = 0, in = 0, pieces = 0;
};
Division division(const ConvProblem& d);

struct WeightStrides {  // in elements
  int64_t k, c, r, s;
};
// gy and x channels_last, x with the channels that it has; gw f32 or bf16.
void grad_weight(const ConvProblem& d, const Tensor& gy, const Tensor& x, const Tensor& gw,
                 const WeightStrides& strides, const Division& division);

// ---- forward and input gradient (conv_narrow_forward_cuda.cu)

// 3x3 with padding 1, stride 1, no groups, no dilation; at most 8, or 16, 32 or 64 channels on
// either side.
bool supports_whole(const ConvProblem& d);
// Whether to use it without timing.
inline bool preferred_whole(const ConvProblem& d) { return d.c * d.k <= 32 * 32; }
// All channels_last; w OHWI, bf16. residual: added to y, may be undefined; add: to what gx holds.
void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& residual,
             const Tensor& y);
void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                bool add);

}  // namespace mtcki::conv_cuda::narrow

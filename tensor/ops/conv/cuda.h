// Internal: convolution and bias on CUDA. Activations are channels_last there, and so are weights
// (OHWI, the order of the kernels); of a plain one, and beside bf16 activations of every f32 one,
// there is a copy (weight_copies.h).
#pragma once

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/profiler.h"
#include "tensor/tensor.h"

namespace mtcki::conv_cuda {

// Checked arguments; results are channels_last in the dtype of the activations. `w` may be f32
// beside bf16 activations. Our own kernels where they are quicker
// (conv_narrow_cuda.h, conv_wgmma_cuda.h), else cuDNN where it has one, else im2col.
// residual: added to the result, may be undefined.
Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x, const Tensor& w,
               const Conv2dOptions& o, const Tensor& residual = {});
// sum: added to the result, in its own memory where nobody else sees it.
Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& w,
                  const Conv2dOptions& o, Tensor sum);
// channels_last in `dtype`; `accept_bf16`: or in bf16 where the kernel stores that, so that nothing
// has to convert it.
Tensor grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& x,
                   DType dtype, bool accept_bf16, const Conv2dOptions& o);

// Channels that the image has when cuDNN gets it, forward and for the weight gradient: 8 for bf16
// and 4 for tf32 at least, since tensor cores take no fewer; the added ones are zero.
int64_t padded_channels(const ConvProblem& d, DType dtype, Math math);

// Patches of images as rows of a matrix, and one GEMM: every dtype, group and dilation, in chunks
// of the batch so that the matrix stays below kIm2colBytes. w: OHWI in the dtype of the
// activations.
namespace im2col {
void forward(const ConvProblem& d, const Tensor& x, const Tensor& w, const Tensor& y, Math math);
void grad_input(const ConvProblem& d, const Tensor& gy, const Tensor& w, const Tensor& gx,
                Math math);
// gw: OHWI, f32 for bf16 activations, else their dtype.
void grad_weight(const ConvProblem& d, const Tensor& gy, const Tensor& x, const Tensor& gw,
                 Math math);
}  // namespace im2col
inline constexpr int64_t kIm2colBytes = int64_t{128} << 20;

}  // namespace mtcki::conv_cuda

// Internal: which kernels run a convolution or a matrix product. The choice is a fixed rule of
// shape, direction and setting, never a run-time timing: a resumed run has to repeat every bit.
#pragma once

#include "tensor/ops/conv.h"
#include "tensor/ops/conv_kernels.h"

namespace mtcki {

struct ConvKernel {
  const char* name;
  void (*forward)(const ConvProblem&, const float* x, const float* w, const ConvTail&, float* y);
  void (*grad_input)(const ConvProblem&, const float* gy, const float* w, float* gx);
  void (*grad_weight)(const ConvProblem&, const float* gy, const float* x, float* gw);
};

const ConvKernel& select_conv(const ConvProblem& d, ConvPass pass);
// Whether bf16 activations go to conv_bf16 as they are. Not with the built-in kernels.
bool select_bf16(const ConvProblem& d, ConvPass pass);

using GemmFunction = void (*)(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t,
                              const float*, int64_t, float*, int64_t);
struct GemmKernel {
  const char* name;
  GemmFunction gemm;
};
const GemmKernel& select_gemm(int64_t m, int64_t n, int64_t k);

}  // namespace mtcki

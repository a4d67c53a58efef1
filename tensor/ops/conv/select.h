// Internal: which kernels run a convolution. The choice is a fixed rule of
// shape, direction and setting, never a run-time timing: a resumed run has to repeat every bit.
#pragma once

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/kernels.h"

namespace mtcki {

// Activations are S in the layout of preferred_layout(); weights, their gradient and what a
// ConvEpilogue points to are f32.
template <class S>
struct ConvKernel {
  const char* name;
  void (*forward)(const ConvProblem&, const S* x, const float* w, const ConvEpilogue&, S* y);
  void (*grad_input)(const ConvProblem&, const S* gy, const float* w, S* gx);
  void (*grad_weight)(const ConvProblem&, const S* gy, const S* x, float* gw);
  // The input gradient plus `sum`, which may be gx itself. Null: the caller has to add.
  void (*grad_input_plus)(const ConvProblem&, const S* gy, const float* w, const S* sum,
                          S* gx) = nullptr;
  // Of what the prologue makes of x. Null: the caller has to make it.
  void (*forward_from)(const ConvProblem&, const S* x, const ConvPrologue&, const float* w,
                       const ConvEpilogue&, S* y) = nullptr;
  void (*grad_weight_from)(const ConvProblem&, const S* gy, const S* x, const ConvPrologue&,
                           float* gw) = nullptr;
  bool in_place = false;  // whether y may be the epilogue's residual
  bool bounded = false;   // whether the prologue's ReLU may have a bound
  bool plain = false;     // reads and writes plain activations, whatever their channels
};

// Of an f32 convolution that is fast() (dispatch.h).
const ConvKernel<float>& select_conv(const ConvProblem& d, ConvPass pass);
// Null: no kernel takes bf16 as it is, the activations are widened. Epilogues hold at most a bias.
const ConvKernel<bfloat16>* select_bf16(const ConvProblem& d, ConvPass pass);

}  // namespace mtcki

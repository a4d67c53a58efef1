// Internal: what every convolution op goes through (conv.cpp, conv_transpose.cpp, conv_bias.cpp):
// the checks of its operands, and the branch to a kernel by device, dtype and shape.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "tensor/op_error.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/profiler.h"
#include "tensor/tensor.h"

namespace mtcki::conv_dispatch {

// Which operands an error text shows.
struct Operands {
  const char* op;
  std::vector<std::pair<const char*, const Tensor*>> list;
  OpError error() const {
    OpError e(op);
    for (const auto& [name, t] : list) e.operand(name, *t);
    return e;
  }
};

// Sizes of y = conv2d(x, w), or the reason why there are none.
ConvProblem problem(const Operands& ops, const Shape& x, const Shape& w, const Conv2dOptions& o);

// The first operand is an activation; weight and bias have its dtype, or are f32 beside bf16.
void check_types(const Operands& ops);
void check_bias(const Operands& ops, const Tensor& bias, int64_t channels);
void check_output(const Operands& ops, const Tensor& gy, const ConvProblem& d);
// The dtype asked for a weight gradient: the activations', or f32 where those are bf16.
DType gradient_type(const Operands& ops, const Tensor& gy, std::optional<DType> dtype);

Traffic cost_bytes(const ConvProblem& d, const Tensor& x);

// True when the f32 kernels take it; else the plain loops.
inline bool fast(const ConvProblem& d, DType dtype) {
  return dtype == DType::f32 &&
         (d.groups == 1 || conv_depthwise::applies(d) || conv_groups::applies(d));
}

// Results may be wider than the operands: f32 where the CPU has no bf16 kernel.
// epilogue: for the f32 kernels, without bias and residual. prologue: for a kernel that has
// forward_from.
Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x, const Tensor& w,
               const Tensor& bias, const Conv2dOptions& o, ConvEpilogue epilogue = {},
               Tensor residual = {}, const ConvPrologue* prologue = nullptr);
// sum: a tensor to add, undefined afterwards where the kernel did.
Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& w,
                  const Conv2dOptions& o, Tensor* sum = nullptr);
Tensor grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& x,
                   DType dtype, bool accept_bf16, const Conv2dOptions& o,
                   const ConvPrologue* prologue = nullptr);

// y += bias[channel], on the device of y.
void add_bias(const Tensor& y, const Tensor& bias);

}  // namespace mtcki::conv_dispatch

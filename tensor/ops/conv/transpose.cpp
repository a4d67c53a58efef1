// Transposed convolution, the adjoint of conv2d in its input: forward and input gradient change
// places.
#include <algorithm>

#include "tensor/ops/conv/dispatch.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

using namespace conv_dispatch;

namespace {

// The convolution whose adjoint conv_transpose2d(x, w) is: x plays grad_output, y plays input.
ConvProblem transposed_problem(const Operands& ops, const Shape& x, const Shape& w,
                               const ConvTranspose2dOptions& o) {
  if (x.rank() != 4) ops.error().shape("input needs rank 4 [N,C,H,W], got ", x);
  if (w.rank() != 4) ops.error().shape("weight needs rank 4 [C,K/groups,R,S], got ", w);
  if (w[0] != x[1]) ops.error().shape("weight expects ", w[0], " input channels, input has ", x[1]);
  Shape y{x[0], w[1] * o.groups, 0, 0};
  for (int i = 0; i < 2; ++i) {
    const size_t u = static_cast<size_t>(i);
    if (o.output_padding[u] < 0 || o.output_padding[u] >= std::max<int64_t>(1, o.stride[u]))
      ops.error().shape("output_padding needs to be at least 0 and below the stride ", o.stride[u],
                        ", got ", o.output_padding[u]);
    const int64_t size = (x[2 + i] - 1) * o.stride[u] - 2 * o.padding[u] +
                         o.dilation[u] * (w[2 + i] - 1) + o.output_padding[u] + 1;
    if (size < 1) ops.error().shape("the output would have size ", size, " in dimension ", 2 + i);
    y.set(2 + i, size);
  }
  const ConvProblem d = problem(ops, y, w, o);
  if (d.p != x[2] || d.q != x[3]) ops.error().shape("input is empty");
  return d;
}

}  // namespace

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias,
                        const ConvTranspose2dOptions& o) {
  const Operands ops{"conv_transpose2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  check_types(ops);
  const ConvProblem d = transposed_problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.c);
  ProfileScope scope("conv_transpose2d", d.flops(), cost_bytes(d, x));
  const Tensor y = grad_input(scope, d, x, w, o);
  if (bias.defined()) add_bias(y, bias);
  return y.to(x.dtype());
}

Tensor conv_transpose2d_grad_input(const Tensor& gy, const Tensor& w,
                                   const ConvTranspose2dOptions& o) {
  const Operands ops{"conv_transpose2d_grad_input", {{"grad_output", &gy}, {"weight", &w}}};
  check_types(ops);
  const ConvProblem d = problem(ops, gy.shape(), w.shape(), o);
  ProfileScope scope("conv_transpose2d_grad_input", d.flops(), cost_bytes(d, gy));
  return forward(scope, d, gy, w, Tensor(), o).to(gy.dtype());
}

Tensor conv_transpose2d_grad_weight(const Tensor& gy, const Tensor& x, const Shape& w_shape,
                                    const ConvTranspose2dOptions& o, std::optional<DType> dtype,
                                    bool accept_bf16) {
  const Operands ops{"conv_transpose2d_grad_weight", {{"grad_output", &gy}, {"input", &x}}};
  check_types(ops);
  const ConvProblem d = problem(ops, gy.shape(), w_shape, o);
  if (x.shape() != Shape{d.n, d.k, d.p, d.q})
    ops.error().shape("input needs shape ", Shape{d.n, d.k, d.p, d.q}, ", got ", x.shape());
  ProfileScope scope("conv_transpose2d_grad_weight", d.flops(), cost_bytes(d, gy));
  const DType out = gradient_type(ops, gy, dtype);
  const Tensor gw = grad_weight(scope, d, x, gy, out, accept_bf16, o);
  return accept_bf16 && gw.dtype() == gy.dtype() ? gw : gw.to(out);
}

}  // namespace mtcki

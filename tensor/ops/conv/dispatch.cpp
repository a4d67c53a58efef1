#include "tensor/ops/conv/dispatch.h"

#include <cstring>

#include "tensor/ops/conv/cuda.h"
#include "tensor/ops/conv/select.h"
#include "tensor/ops/op_util.h"

namespace mtcki::conv_dispatch {

ConvProblem problem(const Operands& ops, const Shape& x, const Shape& w, const Conv2dOptions& o) {
  const auto fail = [&](const auto&... text) { ops.error().shape(text...); };
  if (x.rank() != 4) fail("input needs rank 4 [N,C,H,W], got ", x);
  if (w.rank() != 4) fail("weight needs rank 4 [K,C/groups,R,S], got ", w);
  for (int i = 0; i < 2; ++i) {
    const size_t u = static_cast<size_t>(i);
    if (o.stride[u] < 1) fail("stride needs to be at least 1, got ", o.stride[u]);
    if (o.padding[u] < 0) fail("padding needs to be at least 0, got ", o.padding[u]);
    if (o.dilation[u] < 1) fail("dilation needs to be at least 1, got ", o.dilation[u]);
  }
  ConvProblem d;
  d.n = x[0], d.c = x[1], d.h = x[2], d.w = x[3];
  d.k = w[0], d.r = w[2], d.s = w[3];
  d.stride_h = o.stride[0], d.stride_w = o.stride[1];
  d.pad_h = o.padding[0], d.pad_w = o.padding[1];
  d.dil_h = o.dilation[0], d.dil_w = o.dilation[1];
  d.groups = o.groups;
  if (o.groups < 1 || d.c % o.groups != 0 || d.k % o.groups != 0)
    fail("groups = ", o.groups, " needs to divide ", d.c, " input and ", d.k, " output channels");
  if (d.c < 1 || d.k < 1)
    fail("needs at least one channel, got ", d.c, " input and ", d.k, " output channels");
  if (w[1] * o.groups != d.c)
    fail("weight expects ", w[1] * o.groups, " input channels, input has ", d.c);
  const int64_t span_h = d.dil_h * (d.r - 1) + 1, span_w = d.dil_w * (d.s - 1) + 1;
  if (d.r < 1 || d.s < 1 || d.h + 2 * d.pad_h < span_h || d.w + 2 * d.pad_w < span_w)
    fail("kernel ", span_h, "x", span_w, " is larger than the padded input ", d.h + 2 * d.pad_h,
         "x", d.w + 2 * d.pad_w);
  d.p = (d.h + 2 * d.pad_h - span_h) / d.stride_h + 1;
  d.q = (d.w + 2 * d.pad_w - span_w) / d.stride_w + 1;
  return d;
}

void check_types(const Operands& ops) {
  const Tensor* first = nullptr;
  for (const auto& [name, t] : ops.list) {
    if (!t->defined()) {
      if (std::strcmp(name, "bias") != 0) ops.error().shape(name, " is undefined");
      continue;
    }
    if (!is_floating(t->dtype()))
      ops.error().dtype(name, " needs a floating dtype (f32, f64, bf16)");
    if (!first) first = t;
    const bool parameter = std::strcmp(name, "weight") == 0 || std::strcmp(name, "bias") == 0;
    if (t->dtype() != first->dtype() &&
        !(parameter && first->dtype() == DType::bf16 && t->dtype() == DType::f32))
      ops.error().dtype(name, " is ", name_of(t->dtype()), ", ", ops.list[0].first, " is ",
                        name_of(first->dtype()));
    if (!(t->device() == first->device()))
      ops.error().device(name, " and ", ops.list[0].first, " are on different devices");
  }
}

void check_bias(const Operands& ops, const Tensor& bias, int64_t channels) {
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != channels))
    ops.error().shape("bias needs shape [", channels, "], got ", bias.shape());
}

void check_output(const Operands& ops, const Tensor& gy, const ConvProblem& d) {
  const Shape want{d.n, d.k, d.p, d.q};
  if (gy.shape() != want) ops.error().shape("grad_output needs shape ", want, ", got ", gy.shape());
}

DType gradient_type(const Operands& ops, const Tensor& gy, std::optional<DType> dtype) {
  const DType d = dtype.value_or(gy.dtype());
  if (d != gy.dtype() && !(gy.dtype() == DType::bf16 && d == DType::f32))
    ops.error().dtype("a gradient in ", name_of(d), " cannot be had from ", name_of(gy.dtype()));
  return d;
}

Traffic cost_bytes(const ConvProblem& d, const Tensor& x) {
  return {static_cast<double>(d.x_size() + d.w_size() + d.y_size()) *
              static_cast<double>(size_of(x.dtype())),
          &x};
}

namespace {

// The kernels' layout of an activation on the CPU.
Layout layout_for(DType dtype, int64_t channels) {
  return preferred_layout(Device{}, dtype, channels);
}
Tensor in_layout(const Tensor& t) { return t.to(layout_for(t.dtype(), t.size(1))); }
// The same for f32 and one kernel.
Layout layout_for(const ConvKernel<float>& kernel, int64_t channels) {
  return kernel.plain ? Layout::plain : layout_for(DType::f32, channels);
}
Tensor in_layout(const ConvKernel<float>& kernel, const Tensor& t) {
  return t.to(layout_for(kernel, t.size(1)));
}

// The kernel that takes these bf16 activations as they are; null for other types, and where there
// is none or nothing to compute.
const ConvKernel<bfloat16>* bf16_kernel(const ConvProblem& d, const Tensor& activation,
                                        const Shape& result, ConvPass pass) {
  return is_bf16(activation) && result.numel() > 0 ? select_bf16(d, pass) : nullptr;
}

}  // namespace

Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x_in, const Tensor& w_in,
               const Tensor& bias_in, const Conv2dOptions& o, ConvEpilogue epilogue,
               Tensor residual, const ConvPrologue* prologue) {
  if (x_in.device().is_cuda()) {
    const Tensor y = conv_cuda::forward(scope, d, x_in, w_in, o, residual);
    if (bias_in.defined()) add_bias(y, bias_in);
    return y;
  }
  const Shape shape{d.n, d.k, d.p, d.q};
  const Tensor w = widen(w_in.plain()), bias = widen(bias_in);
  const auto bias_data = [&] { return bias.defined() ? bias.data<float>() : nullptr; };
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, x_in, shape, ConvPass::forward)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor y = Tensor::empty(shape, DType::bf16, {}, layout_for(DType::bf16, d.k));
    epilogue.bias = bias_data();
    kernel->forward(d, in_layout(x_in).data<bfloat16>(), w.data<float>(), epilogue,
                    y.data<bfloat16>());
    return y;
  }
  const Tensor x = widen(x_in);
  if (fast(d, x.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::forward);
    if (residual.defined()) residual = in_layout(kernel, std::exchange(residual, Tensor()));
    const Tensor y = kernel.in_place && residual.unique()
                         ? residual
                         : Tensor::empty(shape, DType::f32, {}, layout_for(kernel, d.k));
    if (y.numel() == 0) return y;
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    epilogue.bias = bias_data();
    if (residual.defined()) epilogue.residual = residual.data<float>();
    const Tensor in = in_layout(kernel, x);
    if (prologue) {
      kernel.forward_from(d, in.data<float>(), *prologue, w.data<float>(), epilogue,
                          y.data<float>());
    } else {
      kernel.forward(d, in.data<float>(), w.data<float>(), epilogue, y.data<float>());
    }
    return in_layout(y);
  }
  if (scope.active()) scope.note(shape_note(d, "reference"));
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor in = x.plain();
  MTCKI_DISPATCH_FLOAT(x.dtype(), "conv2d", T, {
    conv_ref::forward<T>(d, in.data<T>(), w.data<T>(), bias.defined() ? bias.data<T>() : nullptr,
                         y.data<T>());
  });
  return y;
}

Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy_in,
                  const Tensor& w_in, const Conv2dOptions& o, Tensor* sum) {
  if (gy_in.device().is_cuda())
    return conv_cuda::grad_input(scope, d, gy_in, w_in, o,
                                 sum == nullptr ? Tensor() : std::exchange(*sum, Tensor()));
  const Shape shape{d.n, d.c, d.h, d.w};
  const Tensor w = widen(w_in.plain());
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, gy_in, shape, ConvPass::grad_input)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor gx = Tensor::empty(shape, DType::bf16, {}, layout_for(DType::bf16, d.c));
    kernel->grad_input(d, in_layout(gy_in).data<bfloat16>(), w.data<float>(), gx.data<bfloat16>());
    return gx;
  }
  const Tensor gy = widen(gy_in);
  if (fast(d, gy.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::grad_input);
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    const bool adds = sum != nullptr && sum->defined() && sum->dtype() == DType::f32;
    if (adds && kernel.grad_input_plus != nullptr) {
      const Tensor added = in_layout(std::exchange(*sum, Tensor()));
      const Tensor gx =
          added.unique() ? added : Tensor::empty(shape, DType::f32, {}, added.layout());
      if (gx.numel() > 0)
        kernel.grad_input_plus(d, in_layout(gy).data<float>(), w.data<float>(), added.data<float>(),
                               gx.data<float>());
      return gx;
    }
    Tensor gx = Tensor::empty(shape, DType::f32, {}, layout_for(kernel, d.c));
    if (gx.numel() == 0) return gx;
    kernel.grad_input(d, in_layout(kernel, gy).data<float>(), w.data<float>(), gx.data<float>());
    return in_layout(gx);
  }
  if (scope.active()) scope.note(shape_note(d, "reference"));
  Tensor gx = Tensor::empty(shape, gy.dtype(), gy.device());
  const Tensor in = gy.plain();
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "conv2d_grad_input", T,
                       { conv_ref::grad_input<T>(d, in.data<T>(), w.data<T>(), gx.data<T>()); });
  return gx;
}

Tensor grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy_in,
                   const Tensor& x_in, DType dtype, bool accept_bf16, const Conv2dOptions& o,
                   const ConvPrologue* prologue) {
  const Shape shape{d.k, d.c / d.groups, d.r, d.s};
  if (d.n == 0) return Tensor::zeros(shape, dtype, gy_in.device());
  if (gy_in.device().is_cuda())
    return conv_cuda::grad_weight(scope, d, gy_in, x_in, dtype, accept_bf16, o);
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, gy_in, shape, ConvPass::grad_weight)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor gw = Tensor::empty(shape, DType::f32);
    kernel->grad_weight(d, in_layout(gy_in).data<bfloat16>(), in_layout(x_in).data<bfloat16>(),
                        gw.data<float>());
    return gw;
  }
  const Tensor gy = widen(gy_in), x = widen(x_in);
  Tensor gw = Tensor::empty(shape, gy.dtype(), gy.device());
  if (fast(d, gy.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::grad_weight);
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    const Tensor g = in_layout(kernel, gy), in = in_layout(kernel, x);
    if (prologue) {
      kernel.grad_weight_from(d, g.data<float>(), in.data<float>(), *prologue, gw.data<float>());
    } else {
      kernel.grad_weight(d, g.data<float>(), in.data<float>(), gw.data<float>());
    }
    return gw;
  }
  if (scope.active()) scope.note(shape_note(d, "reference"));
  const Tensor g = gy.plain(), in = x.plain();
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "conv2d_grad_weight", T,
                       { conv_ref::grad_weight<T>(d, g.data<T>(), in.data<T>(), gw.data<T>()); });
  return gw;
}

}  // namespace mtcki::conv_dispatch

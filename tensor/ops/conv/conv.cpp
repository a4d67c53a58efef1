#include "tensor/ops/conv/conv.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tensor/ops/conv/dispatch.h"
#include "tensor/ops/conv/select.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gradient_sum.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

using namespace conv_dispatch;

namespace {

bool applied_by_kernels(const Operands& ops, const ConvFusion& f, const Tensor& x, const Tensor& w,
                        const Tensor& bias, const Conv2dOptions& o) {
  std::vector<Tensor> all{x, w, bias, f.residual};
  for (const auto& norm : {f.norm_before, f.norm})
    if (norm)
      for (const Tensor& t : {norm->weight, norm->bias, norm->mean, norm->var, norm->invstd})
        all.push_back(t);
  const bool fit = std::ranges::all_of(all, [](const Tensor& t) {
    return !t.defined() || (t.dtype() == DType::f32 && t.device().is_cpu());
  });
  return fit && f.act.kind != Activation::Kind::leaky_relu &&
         (o.groups == 1 || fast(problem(ops, x.shape(), w.shape(), o), DType::f32));
}

// A batch norm as the kernels apply it: the mean goes off before the scale, because
// x * scale + shift loses all digits when the mean is large.
//   (x + offset) * scale + shift, where offset = bias - mean, with the convolution's bias
struct NormMap {
  Tensor offset, scale, shift;
  ConvPrologue prologue(Activation relu) const {
    ConvPrologue out{offset.data<float>(), scale.data<float>(), shift.data<float>()};
    if (relu.kind == Activation::Kind::bounded_relu) out.most = static_cast<float>(relu.parameter);
    return out;
  }
};
NormMap map_of(const Operands& ops, const ConvFusion::BatchNorm& norm, const Tensor& bias,
               int64_t channels) {
  const Shape shape{channels};
  const auto values = [&](const char* name, const Tensor& t, float absent) {
    if (!t.defined()) return std::vector<float>(static_cast<size_t>(channels), absent);
    if (t.shape() != shape) ops.error().shape(name, " needs shape ", shape, ", got ", t.shape());
    return t.to_vector<float>();
  };
  const auto mean = values("mean", norm.mean, 0.0f), var = values("var", norm.var, 1.0f);
  auto invstd = values("invstd", norm.invstd, 1.0f);
  std::vector<float> offset = values("bias", bias, 0.0f),
                     scale = values("weight", norm.weight, 1.0f);
  for (size_t c = 0; c < scale.size(); ++c) {
    if (!norm.invstd.defined())
      invstd[c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(var[c]) + norm.eps));
    offset[c] -= mean[c];
    scale[c] *= invstd[c];
  }
  return {Tensor::from(offset, shape), Tensor::from(scale, shape),
          Tensor::from(values("bias", norm.bias, 0.0f), shape)};
}

Tensor activated(const Tensor& x, Activation act) {
  switch (act.kind) {
    case Activation::Kind::none:
      return x;
    case Activation::Kind::relu:
      return relu(x);
    case Activation::Kind::leaky_relu:
      return leaky_relu(x, act.parameter);
    case Activation::Kind::bounded_relu:
      return clamp(x, 0.0, act.parameter);
  }
  return x;
}

// The op on its own.
Tensor normalised(const Tensor& x, const ConvFusion::BatchNorm& n, Activation act,
                  const Tensor& residual = {}) {
  if (!n.invstd.defined())
    return batch_norm_eval(x, n.weight, n.bias, n.mean, n.var, n.eps, act, residual);
  if (!residual.defined()) return batch_norm_apply(x, n.weight, n.bias, n.mean, n.invstd, act);
  const Tensor y = add(batch_norm_apply(x, n.weight, n.bias, n.mean, n.invstd), residual);
  return activated(y, act);
}

// Whether a prologue may hold this activation of a batch norm.
bool takes_before(const ConvKernel<float>& kernel, Activation act) {
  return kernel.forward_from && (act.kind == Activation::Kind::relu ||
                                 (act.kind == Activation::Kind::bounded_relu && kernel.bounded));
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o) {
  const Operands ops{"conv2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  check_types(ops);
  const ConvProblem d = problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.k);
  ProfileScope scope("conv2d", d.flops(), cost_bytes(d, x));
  return forward(scope, d, x, w, bias, o).to(x.dtype());
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o,
              ConvFusion f) {
  const bool sum_on_gpu = x.device().is_cuda() && f.residual.defined() && !f.norm &&
                          !f.norm_before && f.act.kind == Activation::Kind::none;
  Operands ops{"conv2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  const bool fused = applied_by_kernels(ops, f, x, w, bias, o);
  if (fused && f.act.kind == Activation::Kind::bounded_relu) {
    const Activation act = std::exchange(f.act, {});
    return activated(conv2d(x, w, bias, o, std::move(f)), act);
  }
  if (f.norm_before && (!fused || !takes_before(select_conv(problem(ops, x.shape(), w.shape(), o),
                                                            ConvPass::forward),
                                                f.norm_before->relu))) {
    const ConvFusion::BatchNorm norm = *std::exchange(f.norm_before, std::nullopt);
    return conv2d(normalised(x, norm, norm.relu), w, bias, o, std::move(f));
  }
  const auto check_residual = [&](const Shape& shape) {
    if (f.residual.defined() && f.residual.shape() != shape)
      ops.error().shape("residual needs shape ", shape, ", got ", f.residual.shape());
  };
  if (!sum_on_gpu && !fused) {
    const Tensor y = conv2d(x, w, bias, o);
    check_residual(y.shape());
    if (f.norm) return normalised(y, *f.norm, f.act, f.residual);
    return activated(f.residual.defined() ? add(y, f.residual) : y, f.act);
  }
  if (f.residual.defined()) ops.list.emplace_back("residual", &f.residual);
  check_types(ops);
  const ConvProblem d = problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.k);
  const Shape shape{d.n, d.k, d.p, d.q};
  check_residual(shape);
  ProfileScope scope("conv2d", d.flops(), cost_bytes(d, x) + bytes_of(f.residual));
  if (sum_on_gpu) return forward(scope, d, x, w, bias, o, {}, f.residual);
  NormMap before, behind;
  ConvPrologue prologue;
  ConvEpilogue epilogue;
  epilogue.relu = f.act.kind == Activation::Kind::relu;
  if (f.norm_before) {
    before = map_of(ops, *f.norm_before, {}, d.c);
    prologue = before.prologue(f.norm_before->relu);
  }
  if (f.norm) {
    behind = map_of(ops, *f.norm, bias, d.k);
    epilogue.scale = behind.scale.data<float>();
    epilogue.shift = behind.shift.data<float>();
  }
  return forward(scope, d, x, w, f.norm ? behind.offset : bias, o, epilogue,
                 std::exchange(f.residual, Tensor()), f.norm_before ? &prologue : nullptr);
}

bool conv2d_normalises(const Tensor& x, const Shape& w_shape, const Conv2dOptions& o,
                       Activation relu) {
  const Operands ops{"conv2d", {{"input", &x}}};
  const ConvProblem d = problem(ops, x.shape(), w_shape, o);
  return x.device().is_cpu() && fast(d, x.dtype()) &&
         takes_before(select_conv(d, ConvPass::forward), relu) &&
         select_conv(d, ConvPass::grad_weight).grad_weight_from;
}

Tensor conv2d_grad_input(const Tensor& gy, const Tensor& w, const Shape& x_shape,
                         const Conv2dOptions& o, Tensor sum) {
  const Operands ops{"conv2d_grad_input", {{"grad_output", &gy}, {"weight", &w}}};
  check_types(ops);
  const ConvProblem d = problem(ops, x_shape, w.shape(), o);
  check_output(ops, gy, d);
  if (sum.defined() &&
      (sum.shape() != x_shape || sum.dtype() != gy.dtype() || sum.device() != gy.device()))
    ops.error()
        .operand("sum", sum)
        .shape("sum needs shape ", x_shape, " and the dtype and device of grad_output");
  Tensor gx;
  {
    ProfileScope scope("conv2d_grad_input", d.flops(), cost_bytes(d, gy) + bytes_of(sum));
    gx = grad_input(scope, d, gy, w, o, &sum).to(gy.dtype());
  }
  GradientSum both(std::move(sum));
  both.add(std::move(gx));
  return both.take();
}

Tensor conv2d_grad_weight(const Tensor& gy, const Tensor& x, const Shape& w_shape,
                          const Conv2dOptions& o, std::optional<DType> dtype, bool accept_bf16,
                          const ConvFusion::BatchNorm* norm_before) {
  const Operands ops{"conv2d_grad_weight", {{"grad_output", &gy}, {"input", &x}}};
  check_types(ops);
  if (norm_before && !conv2d_normalises(x, w_shape, o, norm_before->relu))
    return conv2d_grad_weight(gy, normalised(x, *norm_before, norm_before->relu), w_shape, o, dtype,
                              accept_bf16);
  const ConvProblem d = problem(ops, x.shape(), w_shape, o);
  check_output(ops, gy, d);
  ProfileScope scope("conv2d_grad_weight", d.flops(), cost_bytes(d, gy));
  const DType out = gradient_type(ops, gy, dtype);
  const NormMap before = norm_before ? map_of(ops, *norm_before, {}, d.c) : NormMap();
  const ConvPrologue prologue = norm_before ? before.prologue(norm_before->relu) : ConvPrologue();
  const Tensor gw =
      grad_weight(scope, d, gy, x, out, accept_bf16, o, norm_before ? &prologue : nullptr);
  return accept_bf16 && gw.dtype() == gy.dtype() ? gw : gw.to(out);
}

}  // namespace mtcki

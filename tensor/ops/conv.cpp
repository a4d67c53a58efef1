#include "tensor/ops/conv.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/ops/conv_cuda.h"
#include "tensor/ops/conv_kernels.h"
#include "tensor/ops/conv_select.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gradient_sum.h"
#include "tensor/ops/op_util.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

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

// The first operand is an activation; weight and bias have its dtype, or are f32 beside bf16.
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

// The dtype asked for a weight gradient: the activations', or f32 where those are bf16.
DType gradient_type(const Operands& ops, const Tensor& gy, std::optional<DType> dtype) {
  const DType d = dtype.value_or(gy.dtype());
  if (d != gy.dtype() && !(gy.dtype() == DType::bf16 && d == DType::f32))
    ops.error().dtype("a gradient in ", name_of(d), " cannot be had from ", name_of(gy.dtype()));
  return d;
}

void check_bias(const Operands& ops, const Tensor& bias, int64_t channels) {
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != channels))
    ops.error().shape("bias needs shape [", channels, "], got ", bias.shape());
}

void check_output(const Operands& ops, const Tensor& gy, const ConvProblem& d) {
  const Shape want{d.n, d.k, d.p, d.q};
  if (gy.shape() != want) ops.error().shape("grad_output needs shape ", want, ", got ", gy.shape());
}

Traffic cost_bytes(const ConvProblem& d, const Tensor& x) {
  return {static_cast<double>(d.x_size() + d.w_size() + d.y_size()) *
              static_cast<double>(size_of(x.dtype())),
          &x};
}

// The kernels' form of an activation on the CPU.
Layout form(DType dtype, int64_t channels) { return preferred_layout(Device{}, dtype, channels); }
Tensor in_form(const Tensor& t) { return t.to(form(t.dtype(), t.size(1))); }

// The kernel that takes these bf16 activations as they are; null for other types, and where there
// is none or nothing to compute.
const ConvKernel<bfloat16>* bf16_kernel(const ConvProblem& d, const Tensor& activation,
                                        const Shape& result, ConvPass pass) {
  return is_bf16(activation) && result.numel() > 0 ? select_bf16(d, pass) : nullptr;
}

// True when the f32 kernels take it; else the plain loops.
bool fast(const ConvProblem& d, DType dtype) { return dtype == DType::f32 && d.groups == 1; }

// tail: for the f32 kernels, without bias and residual. lead: for a kernel that has forward_from.
Tensor run_forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x_in,
                   const Tensor& w_in, const Tensor& bias_in, const Conv2dOptions& o,
                   ConvTail tail = {}, Tensor residual = {}, const ConvLead* lead = nullptr) {
  if (x_in.device().is_cuda()) {
    const Tensor y = conv_cuda::forward(scope, d, x_in, w_in, o, residual);
    if (bias_in.defined() && y.numel() > 0) conv_cuda::add_bias(y, bias_in);
    return y;
  }
  const Shape shape{d.n, d.k, d.p, d.q};
  const Tensor w = widen(w_in.plain()), bias = widen(bias_in);
  const auto bias_data = [&] { return bias.defined() ? bias.data<float>() : nullptr; };
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, x_in, shape, ConvPass::forward)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor y = Tensor::empty(shape, DType::bf16, {}, form(DType::bf16, d.k));
    tail.bias = bias_data();
    kernel->forward(d, in_form(x_in).data<bfloat16>(), w.data<float>(), tail, y.data<bfloat16>());
    return y;
  }
  const Tensor x = widen(x_in);
  if (fast(d, x.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::forward);
    if (residual.defined()) residual = in_form(std::exchange(residual, Tensor()));
    const Tensor y = kernel.in_place && residual.unique()
                         ? residual
                         : Tensor::empty(shape, DType::f32, {}, form(DType::f32, d.k));
    if (y.numel() == 0) return y;
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    tail.bias = bias_data();
    if (residual.defined()) tail.residual = residual.data<float>();
    const Tensor in = in_form(x);
    if (lead) {
      kernel.forward_from(d, in.data<float>(), *lead, w.data<float>(), tail, y.data<float>());
    } else {
      kernel.forward(d, in.data<float>(), w.data<float>(), tail, y.data<float>());
    }
    return y;
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

// sum: a tensor to add, undefined afterwards where the kernel did.
Tensor run_grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy_in,
                      const Tensor& w_in, const Conv2dOptions& o, Tensor* sum = nullptr) {
  if (gy_in.device().is_cuda())
    return conv_cuda::grad_input(scope, d, gy_in, w_in, o,
                                 sum == nullptr ? Tensor() : std::exchange(*sum, Tensor()));
  const Shape shape{d.n, d.c, d.h, d.w};
  const Tensor w = widen(w_in.plain());
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, gy_in, shape, ConvPass::grad_input)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor gx = Tensor::empty(shape, DType::bf16, {}, form(DType::bf16, d.c));
    kernel->grad_input(d, in_form(gy_in).data<bfloat16>(), w.data<float>(), gx.data<bfloat16>());
    return gx;
  }
  const Tensor gy = widen(gy_in);
  if (fast(d, gy.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::grad_input);
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    const bool adds = sum != nullptr && sum->defined() && sum->dtype() == DType::f32;
    if (adds && kernel.grad_input_plus != nullptr) {
      const Tensor added = in_form(std::exchange(*sum, Tensor()));
      const Tensor gx =
          added.unique() ? added : Tensor::empty(shape, DType::f32, {}, added.layout());
      if (gx.numel() > 0)
        kernel.grad_input_plus(d, in_form(gy).data<float>(), w.data<float>(), added.data<float>(),
                               gx.data<float>());
      return gx;
    }
    Tensor gx = Tensor::empty(shape, DType::f32, {}, form(DType::f32, d.c));
    if (gx.numel() == 0) return gx;
    kernel.grad_input(d, in_form(gy).data<float>(), w.data<float>(), gx.data<float>());
    return gx;
  }
  if (scope.active()) scope.note(shape_note(d, "reference"));
  Tensor gx = Tensor::empty(shape, gy.dtype(), gy.device());
  const Tensor in = gy.plain();
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "conv2d_grad_input", T,
                       { conv_ref::grad_input<T>(d, in.data<T>(), w.data<T>(), gx.data<T>()); });
  return gx;
}

Tensor run_grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy_in,
                       const Tensor& x_in, DType dtype, bool accept_bf16, const Conv2dOptions& o,
                       const ConvLead* lead = nullptr) {
  const Shape shape{d.k, d.c / d.groups, d.r, d.s};
  if (d.n == 0) return Tensor::zeros(shape, dtype, gy_in.device());
  if (gy_in.device().is_cuda())
    return conv_cuda::grad_weight(scope, d, gy_in, x_in, dtype, accept_bf16, o);
  if (const ConvKernel<bfloat16>* kernel = bf16_kernel(d, gy_in, shape, ConvPass::grad_weight)) {
    if (scope.active()) scope.note(shape_note(d, kernel->name));
    const Tensor gw = Tensor::empty(shape, DType::f32);
    kernel->grad_weight(d, in_form(gy_in).data<bfloat16>(), in_form(x_in).data<bfloat16>(),
                        gw.data<float>());
    return gw;
  }
  const Tensor gy = widen(gy_in), x = widen(x_in);
  Tensor gw = Tensor::empty(shape, gy.dtype(), gy.device());
  if (fast(d, gy.dtype())) {
    const ConvKernel<float>& kernel = select_conv(d, ConvPass::grad_weight);
    if (scope.active()) scope.note(shape_note(d, kernel.name));
    const Tensor g = in_form(gy), in = in_form(x);
    if (lead) {
      kernel.grad_weight_from(d, g.data<float>(), in.data<float>(), *lead, gw.data<float>());
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

bool applied_by_kernels(const ConvNeighbours& f, const Tensor& x, const Tensor& w,
                        const Tensor& bias, const Conv2dOptions& o) {
  std::vector<Tensor> all{x, w, bias, f.residual};
  for (const auto& norm : {f.norm_before, f.norm})
    if (norm)
      for (const Tensor& t : {norm->weight, norm->bias, norm->mean, norm->var, norm->invstd})
        all.push_back(t);
  const bool fit = std::all_of(all.begin(), all.end(), [](const Tensor& t) {
    return !t.defined() || (t.dtype() == DType::f32 && t.device().is_cpu());
  });
  return fit && o.groups == 1 && f.act.kind != Activation::Kind::leaky_relu;
}

// A batch norm as the kernels apply it: the mean goes off before the scale, because
// x * scale + shift loses all digits when the mean is large.
//   (x + offset) * scale + shift, where offset = bias - mean, with the convolution's bias
struct NormMap {
  Tensor offset, scale, shift;
  ConvLead lead() const { return {offset.data<float>(), scale.data<float>(), shift.data<float>()}; }
};
NormMap map_of(const Operands& ops, const ConvNeighbours::BatchNorm& norm, const Tensor& bias,
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
  if (act.kind == Activation::Kind::none) return x;
  return act.kind == Activation::Kind::relu ? relu(x) : leaky_relu(x, act.slope);
}

// The op on its own.
Tensor normalised(const Tensor& x, const ConvNeighbours::BatchNorm& n, Activation act,
                  const Tensor& residual = {}) {
  if (!n.invstd.defined())
    return batch_norm_eval(x, n.weight, n.bias, n.mean, n.var, n.eps, act, residual);
  if (!residual.defined()) return batch_norm_apply(x, n.weight, n.bias, n.mean, n.invstd, act);
  const Tensor y = add(batch_norm_apply(x, n.weight, n.bias, n.mean, n.invstd), residual);
  return activated(y, act);
}

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

// Sums over everything but the channel. Short runs are summed in T, the runs in double.
template <class T>
void channel_sums(const ChannelView& v, const T* g, T* out) {
  constexpr int64_t kRun = 64;
  const auto run_sum = [&](const T* p, int64_t count, T* sums) {
    if (v.block == 1) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < count; ++j) sum += p[j];
      sums[0] = sum;
      return;
    }
    std::fill(sums, sums + v.block, T(0));
    for (int64_t j = 0; j < count; ++j)
      for (int64_t c = 0; c < v.block; ++c) sums[c] += p[j * v.block + c];
  };
  parallel_for(v.blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> total(static_cast<size_t>(v.block));
    std::vector<T> sums(static_cast<size_t>(v.block));
    for (int64_t k = begin; k < end; ++k) {
      std::fill(total.begin(), total.end(), 0.0);
      for (int64_t o = 0; o < v.outer; ++o) {
        const T* p = g + (o * v.blocks + k) * v.inner * v.block;
        for (int64_t i = 0; i < v.inner; i += kRun) {
          run_sum(p + i * v.block, std::min(kRun, v.inner - i), sums.data());
          for (size_t c = 0; c < sums.size(); ++c) total[c] += static_cast<double>(sums[c]);
        }
      }
      for (int64_t c = 0; c < v.block; ++c)
        out[k * v.block + c] = static_cast<T>(total[static_cast<size_t>(c)]);
    }
  });
}

// y is f32, f64 or bf16; bias f64 beside f64, else f32.
template <class T, class Bias>
void add_channel_bias(const Tensor& y, const Tensor& bias) {
  const ChannelView v = channel_view(y.shape(), y.layout());
  T* out = y.data<T>();
  const Bias* b = bias.data<Bias>();
  parallel_for(v.outer * v.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t ok = begin; ok < end; ++ok) {
      const Bias* add = b + ok % v.blocks * v.block;
      T* row = out + ok * v.inner * v.block;
      for (int64_t i = 0; i < v.inner; ++i)
        for (int64_t c = 0; c < v.block; ++c)
          row[i * v.block + c] = T(static_cast<Bias>(row[i * v.block + c]) + add[c]);
    }
  });
}
void add_channel_bias(const Tensor& y, const Tensor& bias) {
  if (is_bf16(y)) return add_channel_bias<bfloat16, float>(y, bias);
  MTCKI_DISPATCH_FLOAT(y.dtype(), "conv_transpose2d", T, { add_channel_bias<T, T>(y, bias); });
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o) {
  const Operands ops{"conv2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  check_types(ops);
  const ConvProblem d = problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.k);
  ProfileScope scope("conv2d", d.flops(), cost_bytes(d, x));
  return run_forward(scope, d, x, w, bias, o).to(x.dtype());
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o,
              ConvNeighbours f) {
  const bool sum_on_gpu = x.device().is_cuda() && f.residual.defined() && !f.norm &&
                          !f.norm_before && f.act.kind == Activation::Kind::none;
  const bool fused = applied_by_kernels(f, x, w, bias, o);
  Operands ops{"conv2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  if (f.norm_before &&
      (!fused ||
       !select_conv(problem(ops, x.shape(), w.shape(), o), ConvPass::forward).forward_from)) {
    const ConvNeighbours::BatchNorm norm = *std::exchange(f.norm_before, std::nullopt);
    return conv2d(normalised(x, norm, Activation::relu()), w, bias, o, std::move(f));
  }
  if (!sum_on_gpu && !fused) {
    const Tensor y = conv2d(x, w, bias, o);
    if (f.norm) return normalised(y, *f.norm, f.act, f.residual);
    return activated(f.residual.defined() ? add(y, f.residual) : y, f.act);
  }
  if (f.residual.defined()) ops.list.emplace_back("residual", &f.residual);
  check_types(ops);
  const ConvProblem d = problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.k);
  const Shape shape{d.n, d.k, d.p, d.q};
  if (f.residual.defined() && f.residual.shape() != shape)
    ops.error().shape("residual needs shape ", shape, ", got ", f.residual.shape());
  ProfileScope scope("conv2d", d.flops(), cost_bytes(d, x) + bytes_of(f.residual));
  if (sum_on_gpu) return run_forward(scope, d, x, w, bias, o, {}, f.residual);
  NormMap before, behind;
  ConvLead lead;
  ConvTail tail;
  tail.relu = f.act.kind == Activation::Kind::relu;
  if (f.norm_before) {
    before = map_of(ops, *f.norm_before, {}, d.c);
    lead = before.lead();
  }
  if (f.norm) {
    behind = map_of(ops, *f.norm, bias, d.k);
    tail.scale = behind.scale.data<float>();
    tail.shift = behind.shift.data<float>();
  }
  return run_forward(scope, d, x, w, f.norm ? behind.offset : bias, o, tail,
                     std::exchange(f.residual, Tensor()), f.norm_before ? &lead : nullptr);
}

bool conv2d_normalises(const Tensor& x, const Shape& w_shape, const Conv2dOptions& o) {
  const Operands ops{"conv2d", {{"input", &x}}};
  const ConvProblem d = problem(ops, x.shape(), w_shape, o);
  return x.device().is_cpu() && fast(d, x.dtype()) &&
         select_conv(d, ConvPass::forward).forward_from &&
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
    gx = run_grad_input(scope, d, gy, w, o, &sum).to(gy.dtype());
  }
  GradientSum both(std::move(sum));
  both.add(std::move(gx));
  return both.take();
}

Tensor conv2d_grad_weight(const Tensor& gy, const Tensor& x, const Shape& w_shape,
                          const Conv2dOptions& o, std::optional<DType> dtype, bool accept_bf16,
                          const ConvNeighbours::BatchNorm* norm_before) {
  const Operands ops{"conv2d_grad_weight", {{"grad_output", &gy}, {"input", &x}}};
  check_types(ops);
  if (norm_before && !conv2d_normalises(x, w_shape, o))
    return conv2d_grad_weight(gy, normalised(x, *norm_before, Activation::relu()), w_shape, o,
                              dtype, accept_bf16);
  const ConvProblem d = problem(ops, x.shape(), w_shape, o);
  check_output(ops, gy, d);
  ProfileScope scope("conv2d_grad_weight", d.flops(), cost_bytes(d, gy));
  const DType out = gradient_type(ops, gy, dtype);
  const NormMap before = norm_before ? map_of(ops, *norm_before, {}, d.c) : NormMap();
  const ConvLead lead = norm_before ? before.lead() : ConvLead();
  const Tensor gw =
      run_grad_weight(scope, d, gy, x, out, accept_bf16, o, norm_before ? &lead : nullptr);
  return accept_bf16 && gw.dtype() == gy.dtype() ? gw : gw.to(out);
}

Tensor conv2d_grad_bias(const Tensor& gy, std::optional<DType> dtype) {
  const Operands ops{"conv2d_grad_bias", {{"grad_output", &gy}}};
  check_types(ops);
  if (gy.rank() != 4) ops.error().shape("grad_output needs rank 4 [N,K,P,Q], got ", gy.shape());
  ProfileScope scope("conv2d_grad_bias", static_cast<double>(gy.numel()), bytes_of(gy));
  const DType out = gradient_type(ops, gy, dtype);
  if (gy.device().is_cuda()) {
    Tensor gb = Tensor::empty({gy.size(1)}, out, gy.device());
    conv_cuda::channel_sums(gy, gb);
    return gb;
  }
  const Tensor g = widen(gy);
  const ChannelView v = channel_view(g.shape(), g.layout());
  Tensor gb = Tensor::empty({v.channels()}, g.dtype());
  MTCKI_DISPATCH_FLOAT(g.dtype(), "conv2d_grad_bias", T,
                       { channel_sums(v, g.data<T>(), gb.data<T>()); });
  return gb.to(out);
}

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias,
                        const ConvTranspose2dOptions& o) {
  const Operands ops{"conv_transpose2d", {{"input", &x}, {"weight", &w}, {"bias", &bias}}};
  check_types(ops);
  const ConvProblem d = transposed_problem(ops, x.shape(), w.shape(), o);
  check_bias(ops, bias, d.c);
  ProfileScope scope("conv_transpose2d", d.flops(), cost_bytes(d, x));
  const Tensor y = run_grad_input(scope, d, x, w, o);
  if (bias.defined() && y.numel() > 0)
    y.device().is_cuda() ? conv_cuda::add_bias(y, bias) : add_channel_bias(y, widen(bias));
  return y.to(x.dtype());
}

Tensor conv_transpose2d_grad_input(const Tensor& gy, const Tensor& w,
                                   const ConvTranspose2dOptions& o) {
  const Operands ops{"conv_transpose2d_grad_input", {{"grad_output", &gy}, {"weight", &w}}};
  check_types(ops);
  const ConvProblem d = problem(ops, gy.shape(), w.shape(), o);
  ProfileScope scope("conv_transpose2d_grad_input", d.flops(), cost_bytes(d, gy));
  return run_forward(scope, d, gy, w, Tensor(), o).to(gy.dtype());
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
  const Tensor gw = run_grad_weight(scope, d, x, gy, out, accept_bf16, o);
  return accept_bf16 && gw.dtype() == gy.dtype() ? gw : gw.to(out);
}

}  // namespace mtcki

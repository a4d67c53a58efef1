#include "tensor/ops/bn_statistics.h"

#include <cmath>

#include "tensor/ops/norm_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

BnStatistics bn_statistics(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                           double momentum, const Tensor& ema_mean, const Tensor& ema_var) {
  const char* op = "bn_statistics";
  check_floating(op, "input", x);
  if (x.rank() != 4 && x.rank() != 2)
    OpError(op).operand("input", x).shape("input needs shape [N,C,H,W] or [N,C]");
  const auto per_channel = [&](const char* name, const Tensor& t) {
    if (!t.defined() || t.shape() != Shape{x.size(1)})
      OpError(op)
          .operand("input", x)
          .operand(name, t)
          .shape(name, " needs shape [", x.size(1), "], one value per channel");
    return t.to(DType::f64);
  };
  if (x.numel() == 0) OpError(op).operand("input", x).shape("the batch is empty");
  if (!(momentum >= 0 && momentum < 1))
    OpError(op).operand("input", x).argument("momentum needs to be in [0, 1), got ", momentum);
  cpu_only(op, x);
  const Tensor rm = per_channel("running_mean", running_mean);
  const Tensor rv = per_channel("running_var", running_var);
  const bool blend = momentum > 0 && ema_mean.defined() && ema_var.defined();
  const Tensor em = blend ? per_channel("ema_mean", ema_mean) : rm;
  const Tensor ev = blend ? per_channel("ema_var", ema_var) : rv;
  const double k = blend ? momentum : 0.0;

  const Tensor in = widen(x);
  ProfileScope scope(op, 4.0 * static_cast<double>(x.numel()), bytes_of(in));
  const Moments m = moments_cpu(in);
  const size_t channels = m.mean.size();
  const double *prm = rm.data<double>(), *prv = rv.data<double>();
  const double *pem = em.data<double>(), *pev = ev.data<double>();
  std::vector<double> dm(channels), dv(channels), scale(channels), shift(channels);
  double sm = 0, sv = 0;
  for (size_t c = 0; c < channels; ++c) {
    dm[c] = (1 - k) * m.mean[c] + k * pem[c] - prm[c];
    dv[c] = (1 - k) * m.var[c] + k * pev[c] - prv[c];
    sm += dm[c] * dm[c];
    sv += dv[c] * dv[c];
  }
  const double n = static_cast<double>(in.numel()) / static_cast<double>(channels);
  const double a = std::max(std::sqrt(sm), 1e-12), b = std::max(std::sqrt(sv), 1e-12);
  for (size_t c = 0; c < channels; ++c) {
    scale[c] = (1 - k) * 2 * dv[c] / (b * n);
    shift[c] = (1 - k) * dm[c] / (a * n) - scale[c] * m.mean[c];
  }
  const DType dtype = in.dtype();
  const Shape shape{x.size(1)};
  BnStatistics out;
  out.loss = Tensor::scalar(std::sqrt(sm) + std::sqrt(sv), dtype);
  out.mean = Tensor::from(m.mean, shape).to(dtype);
  out.var = Tensor::from(m.var, shape).to(dtype);
  out.scale = Tensor::from(scale, shape).to(dtype);
  out.shift = Tensor::from(shift, shape).to(dtype);
  return out;
}

Tensor bn_statistics_grad(const Tensor& g, const Tensor& x, const Tensor& scale,
                          const Tensor& shift) {
  const char* op = "bn_statistics_grad";
  check_floating(op, "input", x);
  if (x.rank() != 4 && x.rank() != 2)
    OpError(op).operand("input", x).shape("input needs shape [N,C,H,W] or [N,C]");
  if (!g.defined() || g.numel() != 1)
    OpError(op).operand("g", g).operand("input", x).shape("g needs a single element");
  for (const Tensor& t : {scale, shift})
    if (!t.defined() || t.shape() != Shape{x.size(1)})
      OpError(op)
          .operand("input", x)
          .operand("scale", scale)
          .operand("shift", shift)
          .shape("scale and shift need shape [", x.size(1), "]");
  cpu_only(op, x);
  const Tensor in = widen(x);
  std::vector<double> a = scale.to_vector<double>(), b = shift.to_vector<double>();
  const double factor = g.item();
  for (size_t c = 0; c < a.size(); ++c) {
    a[c] *= factor;
    b[c] *= factor;
  }
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, 2.0 * static_cast<double>(x.numel()), bytes_of(in, gx));
  channel_affine_cpu(in, a, b, gx);
  return gx.to(x.dtype());
}

}  // namespace mtcki

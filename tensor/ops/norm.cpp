#include "tensor/ops/norm.h"

#include <utility>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

// x and everything of its shape in x's layout and dtype; [C] operands in f32 for bf16, whose
// statistics and parameters it would spoil, else in x's dtype.
class Checks {
 public:
  Checks(const char* op, const char* lead_name, const Tensor& lead) : op_(op), lead_(lead) {
    check_floating(op, lead_name, lead);
    if (lead.rank() != 4 && lead.rank() != 2)
      OpError(op, lead_name, lead).shape(lead_name, " needs shape [N,C,H,W] or [N,C]");
  }
  const Tensor& lead() const { return lead_; }
  DType channel_dtype() const { return is_bf16(lead_) ? DType::f32 : lead_.dtype(); }

  Tensor like(const char* name, const Tensor& t) const {
    if (!t.defined()) return t;
    if (t.shape() != lead_.shape())
      OpError(op_, "input", lead_, name, t).shape(name, " needs the input's shape");
    check_same_dtype_device(op_, "input", lead_, name, t);
    return t.to(lead_.layout());
  }
  Tensor channels(const char* name, const Tensor& t, bool needed) const {
    if (!t.defined() && !needed) return t;
    if (!t.defined() || t.shape() != Shape{lead_.size(1)})
      OpError(op_, "input", lead_, name, t)
          .shape(name, " needs shape [", lead_.size(1), "], one value per channel");
    const Tensor w = is_bf16(t) ? t.to(DType::f32) : t;
    if (w.dtype() != channel_dtype())
      OpError(op_, "input", lead_, name, t).dtype(name, " needs dtype ", name_of(channel_dtype()));
    if (w.device() != lead_.device())
      OpError(op_, "input", lead_, name, t).device("operands on two devices");
    return w;
  }
  void needs(const char* name, const Tensor& t, const char* why) const {
    if (!t.defined()) OpError(op_, "input", lead_, name, t).argument(name, why);
  }

 private:
  const char* op_;
  Tensor lead_;
};

// What every forward takes; mean and spread follow.
BatchNormArgs forward_args(const Checks& checks, const Tensor& weight, const Tensor& bias,
                           Activation act, const Tensor& residual = {}) {
  return {.x = checks.lead(),
          .weight = checks.channels("weight", weight, false),
          .bias = checks.channels("bias", bias, false),
          .act = act,
          .residual = checks.like("residual", residual)};
}

double count_of(const Tensor& x) { return static_cast<double>(x.numel()); }

// Running statistics of bf16 are kept through a wide copy.
void write_back(const Tensor& stored, const Tensor& wide) {
  if (!stored.defined()) return;
  if (stored.shares_memory(wide)) {
    stored.bump_version();
  } else {
    stored.copy_(wide);
  }
}

BatchNormGrads batch_norm_grad(const char* op, bool train, Tensor gy, const Tensor& x,
                               const Tensor& weight, const Tensor& bias, const Tensor& mean,
                               const Tensor& spread, double eps, Activation act, const Tensor& y,
                               bool want_x, bool want_params, bool want_residual,
                               GradientSum gathered) {
  // Everything follows the layout of x; where x is not needed, of gy.
  const Tensor& lead = x.defined() ? x : y.defined() ? y : gy;
  const Checks checks(op, "input", lead);
  BatchNormArgs a;
  checks.needs("gy", gy, " is undefined");
  Tensor g = checks.like("gy", std::exchange(gy, Tensor()));
  a.x = checks.like("x", x);
  a.weight = checks.channels("weight", weight, false);
  a.bias = checks.channels("bias", bias, false);
  a.mean = checks.channels(train ? "mean" : "running_mean", mean, true);
  a.var_or_invstd = checks.channels(train ? "invstd" : "running_var", spread, true);
  a.eps = eps;
  a.act = act;
  const bool masked = act.kind != Activation::Kind::none;
  const Tensor mask = masked ? checks.like("y", y) : Tensor();
  if ((train && want_x) || want_params) checks.needs("x", x, " is needed for these gradients");
  if (masked && !y.defined()) checks.needs("x", x, " or y is needed for the activation's mask");

  BatchNormGrads out;
  const Tensor like = checks.lead();
  auto [sum, statistics] = want_x ? gathered.take_parts() : decltype(gathered.take_parts())();
  a.sum = checks.like("gathered", std::exchange(sum, Tensor()));
  a.statistics = std::move(statistics);
  if (a.statistics.x.defined()) a.x = checks.like("x", a.statistics.x);
  if (like.device().is_cuda()) {
    if (want_x) out.x = Tensor::empty_like(like);
    if (want_residual) out.residual = masked ? Tensor::empty_like(like) : g;
    const DType dtype = checks.channel_dtype();
    for (Tensor* t : {&a.statistics.g, &a.statistics.scale, &a.statistics.shift})
      if (t->defined()) *t = t->to(dtype);
  } else {
    // The kernel reads an element of all before it writes it.
    const bool own_g = g.unique();
    if (want_x) out.x = a.sum.unique() ? a.sum : Tensor();
    if (want_residual) out.residual = !masked || own_g ? g : Tensor::empty_like(like);
    if (want_x && !out.x.defined()) out.x = own_g && !want_residual ? g : Tensor::empty_like(like);
  }
  if (want_params) {
    out.weight = Tensor::empty(a.mean.shape(), checks.channel_dtype(), like.device());
    out.bias = Tensor::empty(a.mean.shape(), checks.channel_dtype(), like.device());
  }
  const bool reduces = want_params || (train && want_x);
  const Traffic reads = bytes_of(g, a.x, mask, a.sum);
  ProfileScope scope(
      op, (reduces ? 10.0 : 4.0) * count_of(like),
      (reduces && (want_x || want_residual) ? 2 : 1) * reads + bytes_of(out.x, out.residual));
  MTCKI_ON_DEVICE(like, batch_norm_grad, g, a, mask, train, out.x, out.weight, out.bias,
                  masked ? out.residual : Tensor());
  if (weight.defined()) out.weight = narrow_to(out.weight, weight.dtype());
  if (bias.defined()) out.bias = narrow_to(out.bias, bias.dtype());
  return out;
}

}  // namespace

namespace {

// Without y where `only_statistics`.
BatchNormTrain train_forward(const char* op, const Tensor& x, const Tensor& weight,
                             const Tensor& bias, const Tensor& running_mean,
                             const Tensor& running_var, double momentum, double eps, Activation act,
                             const Tensor& residual, bool only_statistics) {
  const Checks checks(op, "input", x);
  if (x.size(1) > 0 && x.numel() / x.size(1) < 2)
    OpError(op, "input", x)
        .hint("use a batch of at least two, or eval mode")
        .shape("needs more than one value per channel to train");
  BatchNormArgs a = forward_args(checks, weight, bias, act, residual);
  a.eps = eps;
  const Tensor rm = checks.channels("running_mean", running_mean, false);
  const Tensor rv = checks.channels("running_var", running_var, false);
  BatchNormTrain out;
  if (!only_statistics) out.y = Tensor::empty_like(a.x);
  out.mean = Tensor::empty({x.size(1)}, checks.channel_dtype(), x.device());
  out.invstd = Tensor::empty({x.size(1)}, checks.channel_dtype(), x.device());
  ProfileScope scope(op, (only_statistics ? 4.0 : 8.0) * count_of(x),
                     (only_statistics ? 1 : 2) * bytes_of(a.x) + bytes_of(a.residual, out.y));
  MTCKI_ON_DEVICE(x, batch_norm_train, a, out.y, out.mean, out.invstd, rm, rv, momentum);
  write_back(running_mean, rm);
  write_back(running_var, rv);
  return out;
}

}  // namespace

BatchNormTrain batch_norm_train(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                const Tensor& running_mean, const Tensor& running_var,
                                double momentum, double eps, Activation act,
                                const Tensor& residual) {
  return train_forward("batch_norm_train", x, weight, bias, running_mean, running_var, momentum,
                       eps, act, residual, false);
}

BatchStatistics batch_norm_statistics(const Tensor& x, const Tensor& running_mean,
                                      const Tensor& running_var, double momentum, double eps) {
  const BatchNormTrain out = train_forward("batch_norm_statistics", x, {}, {}, running_mean,
                                           running_var, momentum, eps, {}, {}, true);
  return {out.mean, out.invstd};
}

Tensor batch_norm_apply(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& mean, const Tensor& invstd, Activation act) {
  const char* op = "batch_norm_apply";
  const Checks checks(op, "input", x);
  BatchNormArgs a = forward_args(checks, weight, bias, act);
  a.mean = checks.channels("mean", mean, true);
  a.var_or_invstd = checks.channels("invstd", invstd, true);
  const Tensor y = Tensor::empty_like(a.x);
  ProfileScope scope(op, 4.0 * count_of(x), bytes_of(a.x, y));
  MTCKI_ON_DEVICE(x, batch_norm_apply, a, y);
  return y;
}

BatchNormGrads batch_norm_train_grad(Tensor gy, const Tensor& x, const Tensor& weight,
                                     const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                                     Activation act, const Tensor& y, bool want_x, bool want_params,
                                     bool want_residual, GradientSum gathered) {
  return batch_norm_grad("batch_norm_train_grad", true, std::move(gy), x, weight, bias, mean,
                         invstd, 0, act, y, want_x, want_params, want_residual,
                         std::move(gathered));
}

Tensor batch_norm_eval(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& running_mean, const Tensor& running_var, double eps,
                       Activation act, const Tensor& residual, MomentSums* moments) {
  const char* op = "batch_norm_eval";
  const Checks checks(op, "input", x);
  BatchNormArgs a = forward_args(checks, weight, bias, act, residual);
  a.mean = checks.channels("running_mean", running_mean, true);
  a.var_or_invstd = checks.channels("running_var", running_var, true);
  a.eps = eps;
  Tensor y = Tensor::empty_like(a.x);
  ProfileScope scope(op, (moments ? 8.0 : 4.0) * count_of(x), bytes_of(a.x, a.residual, y));
  if (moments) {
    MTCKI_ON_DEVICE(x, batch_norm_eval_moments, a, y, moments);
  } else {
    MTCKI_ON_DEVICE(x, batch_norm_eval, a, y);
  }
  return y;
}

BatchNormGrads batch_norm_eval_grad(Tensor gy, const Tensor& x, const Tensor& weight,
                                    const Tensor& bias, const Tensor& running_mean,
                                    const Tensor& running_var, double eps, Activation act,
                                    const Tensor& y, bool want_x, bool want_params,
                                    bool want_residual, GradientSum gathered) {
  return batch_norm_grad("batch_norm_eval_grad", false, std::move(gy), x, weight, bias,
                         running_mean, running_var, eps, act, y, want_x, want_params, want_residual,
                         std::move(gathered));
}

ChannelMoments channel_moments(const Tensor& x) {
  const char* op = "channel_moments";
  const Checks checks(op, "input", x);
  const Tensor& in = checks.lead();
  ProfileScope scope(op, 4.0 * count_of(x), bytes_of(in));
  MomentSums sums;
  MTCKI_ON_DEVICE(x, moment_sums, in, &sums);
  const ChannelMoments m = moments_of(sums, count_of(in) / static_cast<double>(in.size(1)));
  return {m.mean.to(checks.channel_dtype()), m.var.to(checks.channel_dtype())};
}

ChannelMoments moments_of(const MomentSums& sums, double count) {
  const Shape channels = sums.origin.shape();
  const ChannelMoments m{Tensor::empty(channels, DType::f64, sums.origin.device()),
                         Tensor::empty(channels, DType::f64, sums.origin.device())};
  MTCKI_ON_DEVICE(sums.origin, finish_moments, sums, count, m);
  return m;
}

}  // namespace mtcki

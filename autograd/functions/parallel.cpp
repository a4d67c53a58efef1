#include "autograd/parallel.h"

#include <limits>

#include "autograd/recorder.h"
#include "tensor/op_error.h"
#include "tensor/ops/bn_statistics.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/update.h"

namespace mtcki {

namespace {

// a and b [C] as one row [1, 2C].
Tensor row_of(const Tensor& a, const Tensor& b) {
  const Shape row{1, a.numel()};
  return cat(std::vector<Tensor>{a.reshape(row), b.reshape(row)}, 1);
}

// Mean and biased variance over the rows of all ranks, and how many values a channel has. The
// variance is the mean of the ranks' variances plus the variance of their means: no cancellation.
struct JobMoments {
  Tensor mean, var;
  double count = 0;
};
JobMoments job_moments(const Tensor& x, const Communicator& comm, const MomentSums& known = {}) {
  const DType dtype = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  const int64_t channels = x.size(1);
  const ChannelMoments own = known.defined()
                                 ? moments_of(known, static_cast<double>(x.numel() / channels))
                                 : channel_moments(x);
  const Tensor all = comm.all_gather(row_of(own.mean.to(dtype), own.var.to(dtype)));
  const Tensor means = narrow(all, 1, 0, channels), vars = narrow(all, 1, channels, 2 * channels);
  JobMoments m;
  m.mean = mean(means, {0});
  m.var = add(mean(vars, {0}), mean(square(sub(means, m.mean)), {0}));
  m.count = static_cast<double>(x.numel() / channels * comm.size());
  return m;
}

// running = (1-momentum)*running + momentum*value
void move(const Tensor& running, const Tensor& value, double momentum) {
  if (running.defined()) ema_update_({running}, {value.to(running.dtype())}, 1.0 - momentum);
}

}  // namespace

Variable mean_over_ranks(const Variable& x, const Communicator& comm) {
  if (comm.size() == 1) return x;
  Recorder r("mean_over_ranks", {x});
  const double share = 1.0 / comm.size();
  const Tensor y = x.data().clone();
  comm.all_reduce_sum_(y);
  mul_(y, share);
  if (r.needs(0)) r.grad(0, [share](const Tensor& gy) { return mul(gy, share); });
  return r.finish(y);
}

Variable gather_over_ranks(const Variable& rows, const Communicator& comm) {
  if (comm.size() == 1) return rows;
  Recorder r("gather_over_ranks", {rows});
  const Tensor y = comm.all_gather(rows.data());
  const int64_t n = rows.size(0), begin = comm.rank() * n;
  if (r.needs(0))
    r.grad(0, [begin, n](const Tensor& gy) { return narrow(gy, 0, begin, begin + n); });
  return r.finish(y);
}

// Built from the ops of frozen statistics: with μ, σ² of the job known, the forward is that of eval
// mode, and so is the backward up to the two terms that come from μ and σ²:
//
//   gx = w/σ g - w/(σ n) (Σ g + x̂ Σ g x̂),   x̂ = (x-μ)/σ,  g = gy act'(.),  sums over all ranks
//
// The second term is an eval-mode batch norm of x with weight -w/(σn) Σ g x̂ and bias -w/(σn) Σ g.
Variable batch_norm_train(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& running_mean, const Tensor& running_var, double momentum,
                          double eps, Activation act, const Variable& residual,
                          const Communicator& comm, bool recompute) {
  if (comm.size() == 1)
    return batch_norm_train(x, weight, bias, running_mean, running_var, momentum, eps, act,
                            residual, recompute);
  Recorder r("batch_norm", {x, weight, bias, residual});
  const JobMoments m = job_moments(x.data(), comm);
  const double n = m.count;
  if (n < 2)
    OpError("batch_norm_train", "input", x.data())
        .hint("use a batch of at least two, or eval mode")
        .shape("needs more than one value per channel to train");
  const Tensor y = batch_norm_eval(x.data(), weight.data(), bias.data(), m.mean, m.var, eps, act,
                                   residual.data());
  move(running_mean, m.mean, momentum);
  move(running_var, mul(m.var, n / (n - 1)), momentum);
  if (!r.needs_any()) return r.finish(y);
  const bool want_x = r.needs(0), want_residual = r.needs(3);
  const bool keep_y = act.kind != Activation::Kind::none && residual.defined();
  const SavedTensor sx = r.save(x.data()), w = r.save(weight.data()), b = r.save(bias.data()),
                    mean = r.save(m.mean), var = r.save(m.var);
  r.grad({0, 1, 2, 3},
         [sx, w, b, mean, var, y = r.save(keep_y ? y : Tensor()), n, eps, act, want_x,
          want_residual, &comm](const Tensor& gy) -> std::vector<Tensor> {
           BatchNormGrads g =
               batch_norm_eval_grad(gy, sx.get(), w.get(), b.get(), mean.get(), var.get(), eps, act,
                                    y.get(), want_x, true, want_residual);
           if (want_x) {
             const int64_t channels = mean.get().numel();
             const Tensor sums = row_of(g.weight, g.bias);  // Σ g x̂, Σ g
             comm.all_reduce_sum_(sums);
             const Tensor scale =
                 div(mul(w.get(), -1.0 / n), sqrt(add(var.get(), eps)).to(w.get().dtype()));
             const auto term = [&](int64_t begin) {
               return mul(narrow(sums, 1, begin, begin + channels).reshape({channels}), scale);
             };
             g.x = batch_norm_eval(sx.get(), term(0), term(channels), mean.get(), var.get(), eps,
                                   {}, g.x);
           }
           return {g.x, g.weight, g.bias, g.residual};
         });
  if (!recompute || residual.defined()) return r.finish(y);
  return r.finish(y, [sx, w, b, mean, var, eps, act] {
    return batch_norm_eval(sx.get(), w.get(), b.get(), mean.get(), var.get(), eps, act);
  });
}

Variable bn_statistics(const Variable& x, const Tensor& running_mean, const Tensor& running_var,
                       double momentum, const Tensor& ema_mean, const Tensor& ema_var,
                       Tensor* batch_mean, Tensor* batch_var, const Communicator& comm,
                       const MomentSums& known) {
  if (comm.size() == 1)
    return bn_statistics(x, running_mean, running_var, momentum, ema_mean, ema_var, batch_mean,
                         batch_var, known);
  Recorder r("bn_statistics", {x});
  const JobMoments m = job_moments(x.data(), comm, known);
  if (batch_mean) *batch_mean = m.mean;
  if (batch_var) *batch_var = m.var;
  const double k = ema_mean.defined() && ema_var.defined() ? momentum : 0.0;
  // (1-k) value + k ema - running
  const auto distance = [&](const Tensor& value, const Tensor& ema, const Tensor& running) {
    const Tensor blend = k > 0 ? add(mul(value, 1 - k), mul(ema.to(value.dtype()), k)) : value;
    return sub(blend, running.to(value.dtype()));
  };
  const Tensor dm = distance(m.mean, ema_mean, running_mean);
  const Tensor dv = distance(m.var, ema_var, running_var);
  const Tensor a = norm(dm), c = norm(dv);
  if (r.needs(0)) {
    const auto unit = [](const Tensor& d, const Tensor& length) {
      return div(d, clamp(length, 1e-12, std::numeric_limits<double>::infinity()));
    };
    // dL/dx = scale x + shift (ops/bn_statistics.h), n counted over all ranks
    const Tensor scale = mul(unit(dv, c), 2 * (1 - k) / m.count);
    const Tensor shift = sub(mul(unit(dm, a), (1 - k) / m.count), mul(scale, m.mean));
    r.gather({0}, [x = r.save(x.data()), scale = r.save(scale), shift = r.save(shift)](
                      const Tensor& gy, GradientSum* gx) {
      gx->add_statistics(gy, x.get(), scale.get(), shift.get());
      return std::vector<Tensor>();
    });
  }
  return r.finish(add(a, c));
}

}  // namespace mtcki

#include "tensor/ops/norm.h"

#include <utility>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/ops/bn_statistics.h"

namespace mtcki {

namespace {

bool has_mask(const Activation& act) { return act.kind != Activation::Kind::none; }

}  // namespace

Variable batch_norm_train(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& running_mean, const Tensor& running_var, double momentum,
                          double eps, Activation act, const Variable& residual, bool recompute) {
  Recorder r("batch_norm", {x, weight, bias, residual});
  const BatchNormTrain out = batch_norm_train(x.data(), weight.data(), bias.data(), running_mean,
                                              running_var, momentum, eps, act, residual.data());
  if (!r.needs_any()) return r.finish(out.y);
  const bool want_x = r.needs(0), want_params = r.needs(1) || r.needs(2),
             want_residual = r.needs(3);
  // With a residual the mask cannot be recomputed from x alone: the output is kept for it.
  const bool keep_y = has_mask(act) && residual.defined();
  const SavedTensor sx = r.save(x.data()), w = r.save(weight.data()), b = r.save(bias.data()),
                    mean = r.save(out.mean), invstd = r.save(out.invstd);
  r.gather({0, 1, 2, 3},
           [sx, w, b, mean, invstd, y = r.save(keep_y ? out.y : Tensor()), act, want_x, want_params,
            want_residual](Tensor gy, GradientSum* gx) -> std::vector<Tensor> {
             BatchNormGrads g = batch_norm_train_grad(
                 std::move(gy), sx.get(), w.get(), b.get(), mean.get(), invstd.get(), act, y.get(),
                 want_x, want_params, want_residual, std::exchange(*gx, {}));
             *gx = g.x;
             return {g.weight, g.bias, g.residual};
           });
  if (!recompute || residual.defined()) return r.finish(out.y);
  return r.finish(out.y, [sx, w, b, mean, invstd, act] {
    return batch_norm_apply(sx.get(), w.get(), b.get(), mean.get(), invstd.get(), act);
  });
}

Variable batch_norm_eval(const Variable& x, const Variable& weight, const Variable& bias,
                         const Tensor& running_mean, const Tensor& running_var, double eps,
                         Activation act, const Variable& residual, MomentSums* moments) {
  Recorder r("batch_norm", {x, weight, bias, residual});
  const Tensor out = batch_norm_eval(x.data(), weight.data(), bias.data(), running_mean,
                                     running_var, eps, act, residual.data(), moments);
  if (r.needs_any()) {
    const bool want_x = r.needs(0), want_params = r.needs(1) || r.needs(2),
               want_residual = r.needs(3);
    const bool keep_y = has_mask(act) && residual.defined();
    const bool keep_x = want_params || (has_mask(act) && !keep_y);
    r.gather({0, 1, 2, 3},
             [x = r.save(keep_x ? x.data() : Tensor()), w = r.save(weight.data()),
              b = r.save(bias.data()), mean = r.save(running_mean), var = r.save(running_var),
              y = r.save(keep_y ? out : Tensor()), eps, act, want_x, want_params,
              want_residual](Tensor gy, GradientSum* gx) -> std::vector<Tensor> {
               BatchNormGrads g = batch_norm_eval_grad(
                   std::move(gy), x.get(), w.get(), b.get(), mean.get(), var.get(), eps, act,
                   y.get(), want_x, want_params, want_residual, std::exchange(*gx, {}));
               *gx = g.x;
               return {g.weight, g.bias, g.residual};
             });
  }
  return r.finish(out);
}

Variable bn_statistics(const Variable& x, const Tensor& running_mean, const Tensor& running_var,
                       double momentum, const Tensor& ema_mean, const Tensor& ema_var,
                       Tensor* batch_mean, Tensor* batch_var, const MomentSums& known) {
  Recorder r("bn_statistics", {x});
  const BnStatistics s =
      bn_statistics(x.data(), running_mean, running_var, momentum, ema_mean, ema_var, known);
  if (batch_mean) *batch_mean = s.mean;
  if (batch_var) *batch_var = s.var;
  if (r.needs(0))
    r.gather({0}, [x = r.save(x.data()), scale = r.save(s.scale), shift = r.save(s.shift)](
                      const Tensor& gy, GradientSum* gx) {
      gx->add_statistics(gy, x.get(), scale.get(), shift.get());
      return std::vector<Tensor>();
    });
  return r.finish(s.loss);
}

Variable bn_statistics(const std::vector<BnStatisticsInput>& layers, double momentum,
                       std::vector<ChannelMoments>* statistics) {
  std::vector<Variable> inputs;
  std::vector<BnStatisticsLayer> tensors;
  for (const BnStatisticsInput& l : layers) {
    inputs.push_back(l.x);
    tensors.push_back({l.x.data(), l.running_mean, l.running_var, l.ema_mean, l.ema_var, l.known});
  }
  Recorder r("bn_statistics", inputs);
  const BnStatisticsSum s = bn_statistics(tensors, momentum);
  if (statistics) {
    statistics->clear();
    for (const BnStatistics& layer : s.layers) statistics->push_back({layer.mean, layer.var});
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const int input = static_cast<int>(i);
    if (!r.needs(input)) continue;
    r.gather({input}, [x = r.save(tensors[i].x), scale = r.save(s.layers[i].scale),
                       shift = r.save(s.layers[i].shift)](const Tensor& gy, GradientSum* gx) {
      gx->add_statistics(gy, x.get(), scale.get(), shift.get());
      return std::vector<Tensor>();
    });
  }
  return r.finish(s.loss);
}

}  // namespace mtcki

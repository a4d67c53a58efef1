#include "tensor/ops/bn_statistics.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

// The dtype of [C] tensors that belong to x.
DType channel_dtype(const Tensor& x) { return is_bf16(x) ? DType::f32 : x.dtype(); }

void check_input(const char* op, const Tensor& x) {
  check_floating(op, "input", x);
  if (x.rank() != 4 && x.rank() != 2)
    OpError(op, "input", x).shape("input needs shape [N,C,H,W] or [N,C]");
}

void check_channels(const char* op, const Tensor& x, const char* name, const Tensor& t) {
  if (!t.defined() || t.shape() != Shape{x.size(1)})
    OpError(op, "input", x, name, t)
        .shape(name, " needs shape [", x.size(1), "], one value per channel");
  if (t.device() != x.device()) OpError(op, "input", x, name, t).device("operands on two devices");
}

// The checked operands of a layer; `compared` is the dtype that statistics are compared in.
BnStatisticsArgs checked(const BnStatisticsLayer& layer, double momentum, DType compared) {
  const char* op = "bn_statistics";
  const Tensor& x = layer.x;
  check_input(op, x);
  if (x.numel() == 0) OpError(op, "input", x).shape("the batch is empty");
  if (!(momentum >= 0 && momentum < 1))
    OpError(op, "input", x).argument("momentum needs to be in [0, 1), got ", momentum);
  check_channels(op, x, "running_mean", layer.running_mean);
  check_channels(op, x, "running_var", layer.running_var);
  BnStatisticsArgs a;
  const bool blend = momentum > 0 && layer.ema_mean.defined() && layer.ema_var.defined();
  if (blend) {
    check_channels(op, x, "ema_mean", layer.ema_mean);
    check_channels(op, x, "ema_var", layer.ema_var);
    a.momentum = momentum;
  }
  a.running_mean = layer.running_mean;
  a.running_var = layer.running_var;
  a.ema_mean = blend ? layer.ema_mean : layer.running_mean;
  a.ema_var = blend ? layer.ema_var : layer.running_var;
  for (Tensor* t : {&a.running_mean, &a.running_var, &a.ema_mean, &a.ema_var}) *t = t->to(compared);

  a.count = static_cast<double>(x.numel()) / static_cast<double>(x.size(1));
  if (layer.known.defined()) check_channels(op, x, "known moments", layer.known.origin);
  a.moments = layer.known;
  return a;
}

// f32 where all statistics of all layers are, else f64.
DType compared_in(const std::vector<BnStatisticsLayer>& layers) {
  for (const BnStatisticsLayer& l : layers)
    for (const Tensor& t : {l.running_mean, l.running_var, l.ema_mean, l.ema_var})
      if (t.defined() && t.dtype() != DType::f32) return DType::f64;
  return DType::f32;
}

BnStatistics outputs_for(const Tensor& x) {
  const auto make = [&](const Shape& shape) {
    return Tensor::empty(shape, channel_dtype(x), x.device());
  };
  const Shape channels{x.size(1)};
  return {make({}), make(channels), make(channels), make(channels), make(channels)};
}

}  // namespace

BnStatistics bn_statistics(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                           double momentum, const Tensor& ema_mean, const Tensor& ema_var,
                           const MomentSums& known) {
  return bn_statistics({{x, running_mean, running_var, ema_mean, ema_var, known}}, momentum)
      .layers.front();
}

BnStatisticsSum bn_statistics(const std::vector<BnStatisticsLayer>& layers, double momentum) {
  const char* op = "bn_statistics";
  if (layers.empty())
    OpError(op).hint("leave the loss out where no layer has a batch norm").argument("no layers");
  const Tensor& first = layers.front().x;
  std::vector<BnStatisticsArgs> args;
  BnStatisticsSum sum;
  const DType compared = compared_in(layers);
  double read = 0;  // elements
  for (const BnStatisticsLayer& layer : layers) {
    args.push_back(checked(layer, momentum, compared));
    check_same_dtype_device(op, "first input", first, "input", layer.x);
    sum.layers.push_back(outputs_for(layer.x));
    if (!layer.known.defined()) read += static_cast<double>(layer.x.numel());
  }
  sum.loss = layers.size() == 1
                 ? sum.layers.front().loss
                 : Tensor::empty({}, sum.layers.front().loss.dtype(), first.device());
  ProfileScope scope(op, 4.0 * read, {read * static_cast<double>(size_of(first.dtype())), &first});
  for (size_t i = 0; i < layers.size(); ++i)
    if (!layers[i].known.defined())
      MTCKI_ON_DEVICE(first, moment_sums, layers[i].x, &args[i].moments);
  MTCKI_ON_DEVICE(first, bn_statistics, args, sum);
  return sum;
}

Tensor bn_statistics_grad(const Tensor& g, const Tensor& x, const Tensor& scale,
                          const Tensor& shift, Tensor sum) {
  const char* op = "bn_statistics_grad";
  check_input(op, x);
  if (!g.defined() || g.numel() != 1)
    OpError(op, "g", g, "input", x).shape("g needs a single element");
  if (g.device() != x.device()) OpError(op, "g", g, "input", x).device("operands on two devices");
  check_channels(op, x, "scale", scale);
  check_channels(op, x, "shift", shift);
  const DType dtype = channel_dtype(x);
  if (sum.defined()) {
    if (sum.shape() != x.shape() || sum.dtype() != x.dtype() || sum.device() != x.device())
      OpError(op, "input", x, "sum", sum).shape("sum needs to be like the input");
    sum = sum.to(x.layout());
  }
  const Tensor gx = sum.unique() ? sum : Tensor::empty_like(x);
  ProfileScope scope(op, 3.0 * static_cast<double>(x.numel()), bytes_of(x, sum, gx));
  MTCKI_ON_DEVICE(x, channel_affine, x, scale.to(dtype), shift.to(dtype), g.to(dtype), sum, gx);
  return gx;
}

}  // namespace mtcki

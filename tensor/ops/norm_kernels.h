// Kernels of norm.h and bn_statistics.h: checked inputs in one layout, allocated outputs. [C]
// tensors are f64 for f64 activations, else f32, unless it says otherwise.
#pragma once

#include <vector>

#include "tensor/ops/bn_statistics.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

MTCKI_KERNEL(moment_sums, const Tensor& x, MomentSums* out);
// NaN where there are no values.
MTCKI_KERNEL(finish_moments, const MomentSums& sums, double count, const ChannelMoments& out);

// [C] parameters may be undefined (weight 1, bias 0).
struct BatchNormArgs {
  Tensor x, weight, bias, mean, var_or_invstd;  // see each kernel
  double eps = 0;
  Activation act;
  Tensor residual;
  // For gradients: what else gx gets (GradientSum), in parts that may be undefined. The statistics
  // are of the same x.
  Tensor sum;
  GradientSum::Statistics statistics;
};
// y from x; a.mean and a.var_or_invstd are running mean and variance.
MTCKI_KERNEL(batch_norm_eval, const BatchNormArgs& a, const Tensor& y);
// The same, and what moment_sums_cpu makes of a.x.
MTCKI_KERNEL(batch_norm_eval_moments, const BatchNormArgs& a, const Tensor& y, MomentSums* out);
// Fills y (may be undefined), mean, invstd, and moves running_mean, running_var (may be undefined).
MTCKI_KERNEL(batch_norm_train, const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
             const Tensor& invstd, const Tensor& running_mean, const Tensor& running_var,
             double momentum);
// y once more: a.var_or_invstd is invstd.
MTCKI_KERNEL(batch_norm_apply, const BatchNormArgs& a, const Tensor& y);
// Gradients: undefined outputs are not computed. The mask comes from y where it is defined, else
// from x. train: var_or_invstd is invstd and the statistics depend on x; else it is the running
// variance and they do not.
MTCKI_KERNEL(batch_norm_grad, const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
             const Tensor& gx, const Tensor& gweight, const Tensor& gbias, const Tensor& gresidual);

// out = sum + factor*a[c]*x + factor*b[c], factor a single element, sum undefined: 0. out may be
// sum.
MTCKI_KERNEL(channel_affine, const Tensor& x, const Tensor& a, const Tensor& b,
             const Tensor& factor, const Tensor& sum, const Tensor& out);

// The losses, their sum, and all that follows from the batch's statistics.
struct BnStatisticsArgs {
  MomentSums moments;                                   // of the batch
  Tensor running_mean, running_var, ema_mean, ema_var;  // [C], all f32 or all f64
  double momentum = 0;
  double count = 0;  // values per channel
};
MTCKI_KERNEL(bn_statistics, const std::vector<BnStatisticsArgs>& layers,
             const BnStatisticsSum& out);

}  // namespace mtcki

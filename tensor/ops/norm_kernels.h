// CPU kernels of norm.h and bn_statistics.h: checked inputs in one layout, allocated outputs.
#pragma once

#include <vector>

#include "tensor/ops/norm.h"
#include "tensor/tensor.h"

namespace mtcki {

// Mean and biased variance per channel, in f64. x f32 or f64.
struct Moments {
  std::vector<double> mean, var;
};
Moments moments_cpu(const Tensor& x);

// [C] parameters may be undefined (weight 1, bias 0).
struct BatchNormArgs {
  Tensor x, weight, bias, mean, var_or_invstd;  // see each kernel
  double eps = 0;
  Activation act;
  Tensor residual;
};
// y from x; a.mean and a.var_or_invstd are running mean and variance.
void batch_norm_eval_cpu(const BatchNormArgs& a, const Tensor& y);
// Fills y, mean, invstd, and moves running_mean, running_var (may be undefined).
void batch_norm_train_cpu(const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
                          const Tensor& invstd, const Tensor& running_mean,
                          const Tensor& running_var, double momentum);
// Gradients: undefined outputs are not computed. The mask comes from y where it is defined, else
// from x. train: var_or_invstd is invstd and the statistics depend on x; else it is the running
// variance and they do not.
void batch_norm_grad_cpu(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                         const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                         const Tensor& gresidual);

// out = a[c]*x + b[c].
void channel_affine_cpu(const Tensor& x, const std::vector<double>& a, const std::vector<double>& b,
                        const Tensor& out);

}  // namespace mtcki

// The BN-statistics loss of one layer (DeepInversion, Yin et al. 2020; norms, not squares, as CMI):
//
//   L = || mu - running_mean ||_2 + || s - running_var ||_2
//   mu, s = mean and biased variance of x over N,H,W
//   momentum form (Fast): mu <- (1-k) mu + k ema_mean, s likewise, inside the norms
//
//   dL/dx = (1-k) [ (mu-rm)/(a n) + (s-rv)/c * 2 (x-mu)/n ],   n = N*H*W,
//   a = max(||mu-rm||, 1e-12), c = max(||s-rv||, 1e-12)       (docs/method.md)
#pragma once

#include <vector>

#include "tensor/ops/norm.h"
#include "tensor/tensor.h"

namespace mtcki {

struct BnStatistics {
  Tensor loss;          // scalar
  Tensor mean, var;     // [C] of this batch (the plain ones, for the EMA of the momentum form)
  Tensor scale, shift;  // [C]: dL/dx = scale[c]*x + shift[c], all the backward needs beside x
};
// ema_mean/ema_var undefined or momentum 0: the plain form. known: the moments of x where
// batch_norm_eval has computed them already.
BnStatistics bn_statistics(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                           double momentum = 0.0, const Tensor& ema_mean = {},
                           const Tensor& ema_var = {}, const MomentSums& known = {});
// The losses of several layers, whose inputs have one dtype and device, and their sum; on a GPU by
// one kernel where the moments are known. Error when there are no layers.
struct BnStatisticsLayer {
  Tensor x, running_mean, running_var, ema_mean, ema_var;
  MomentSums known;
};
struct BnStatisticsSum {
  Tensor loss;  // scalar
  std::vector<BnStatistics> layers;
};
BnStatisticsSum bn_statistics(const std::vector<BnStatisticsLayer>& layers, double momentum = 0.0);

// sum + g * (scale[c]*x + shift[c]), g the scalar gradient of the loss; sum (x's shape, or
// undefined) what x has of gradients already. Its memory is reused when nobody else sees it.
Tensor bn_statistics_grad(const Tensor& g, const Tensor& x, const Tensor& scale,
                          const Tensor& shift, Tensor sum = {});

}  // namespace mtcki

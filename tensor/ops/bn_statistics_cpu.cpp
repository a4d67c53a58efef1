#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/ops/norm_kernels.h"

namespace mtcki {

namespace {

void one_layer(const BnStatisticsArgs& a, const BnStatistics& out) {
  const double k = a.momentum, n = a.count;
  const auto values = [](const Tensor& t) { return t.to_vector<double>(); };
  const ChannelMoments batch = moments_of(a.moments, n);
  const double *mean = batch.mean.data<double>(), *var = batch.var.data<double>();
  const auto rm = values(a.running_mean), rv = values(a.running_var), em = values(a.ema_mean),
             ev = values(a.ema_var);
  const size_t channels = rm.size();
  std::vector<double> dm(channels), dv(channels);
  double sm = 0, sv = 0;
  for (size_t c = 0; c < channels; ++c) {
    dm[c] = (1 - k) * mean[c] + k * em[c] - rm[c];
    dv[c] = (1 - k) * var[c] + k * ev[c] - rv[c];
    sm += dm[c] * dm[c];
    sv += dv[c] * dv[c];
  }
  const double norm_m = std::max(std::sqrt(sm), 1e-12), norm_v = std::max(std::sqrt(sv), 1e-12);
  MTCKI_DISPATCH_FLOAT(out.loss.dtype(), "bn_statistics", T, {
    *out.loss.data<T>() = static_cast<T>(std::sqrt(sm) + std::sqrt(sv));
    for (size_t c = 0; c < channels; ++c) {
      const double scale = (1 - k) * 2 * dv[c] / (norm_v * n);
      out.mean.data<T>()[c] = static_cast<T>(mean[c]);
      out.var.data<T>()[c] = static_cast<T>(var[c]);
      out.scale.data<T>()[c] = static_cast<T>(scale);
      out.shift.data<T>()[c] = static_cast<T>((1 - k) * dm[c] / (norm_m * n) - scale * mean[c]);
    }
  });
}

}  // namespace

void bn_statistics_cpu(const std::vector<BnStatisticsArgs>& layers, const BnStatisticsSum& out) {
  for (size_t i = 0; i < layers.size(); ++i) one_layer(layers[i], out.layers[i]);
  if (layers.size() == 1) return;
  MTCKI_DISPATCH_FLOAT(out.loss.dtype(), "bn_statistics", T, {
    T sum = 0;
    for (const BnStatistics& layer : out.layers) sum += static_cast<T>(layer.loss.item());
    *out.loss.data<T>() = sum;
  });
}

}  // namespace mtcki

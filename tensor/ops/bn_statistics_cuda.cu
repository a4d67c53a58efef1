#include <cmath>

#include "tensor/ops/channel_walk.cuh"
#include "tensor/ops/norm_kernels.h"

namespace mtcki {

namespace {

using cuda::kThreads;
using cuda::launch;

// One block: dm, dv of every channel, their two norms, then what depends on the norms.
template <class C, class P>
__global__ void bn_statistics_kernel(const double* __restrict__ mean,
                                     const double* __restrict__ var,
                                     const P* __restrict__ running_mean,
                                     const P* __restrict__ running_var,
                                     const P* __restrict__ ema_mean, const P* __restrict__ ema_var,
                                     double momentum, double n, int64_t channels, C* loss,
                                     C* batch_mean, C* batch_var, C* scale, C* shift) {
  __shared__ double shared[kThreads * sizeof(TwoSums) / sizeof(double)];
  TwoSums* sums = reinterpret_cast<TwoSums*>(shared);
  const auto distance = [momentum](double batch, double running, double ema) {
    return (1 - momentum) * batch + momentum * ema - running;
  };
  TwoSums own[1];
  own[0] = TwoSums{};
  for (int64_t c = threadIdx.y; c < channels; c += kThreads) {
    const double dm = distance(mean[c], double(running_mean[c]), double(ema_mean[c]));
    const double dv = distance(var[c], double(running_var[c]), double(ema_var[c]));
    own[0].a += dm * dm;
    own[0].b += dv * dv;
  }
  merge_block<1>(own, sums);
  const double mean_norm = std::sqrt(sums[0].a), var_norm = std::sqrt(sums[0].b);
  const double a = mean_norm < 1e-12 ? 1e-12 : mean_norm, b = var_norm < 1e-12 ? 1e-12 : var_norm;
  if (threadIdx.y == 0) *loss = static_cast<C>(mean_norm + var_norm);
  for (int64_t c = threadIdx.y; c < channels; c += kThreads) {
    const double dm = distance(mean[c], double(running_mean[c]), double(ema_mean[c]));
    const double dv = distance(var[c], double(running_var[c]), double(ema_var[c]));
    const double s = (1 - momentum) * 2 * dv / (b * n);
    batch_mean[c] = static_cast<C>(mean[c]);
    batch_var[c] = static_cast<C>(var[c]);
    scale[c] = static_cast<C>(s);
    shift[c] = static_cast<C>((1 - momentum) * dm / (a * n) - s * mean[c]);
  }
}

template <class C>
void run(const BnStatisticsArgs& a, const BnStatistics& out) {
  MTCKI_DISPATCH_FLOAT(a.running_mean.dtype(), "bn_statistics", P, {
    launch(bn_statistics_kernel<C, P>, dim3(1), dim3(1, kThreads), 0, a.mean.data<double>(),
           a.var.data<double>(), a.running_mean.data<P>(), a.running_var.data<P>(),
           a.ema_mean.data<P>(), a.ema_var.data<P>(), a.momentum, a.count, a.mean.numel(),
           out.loss.data<C>(), out.mean.data<C>(), out.var.data<C>(), out.scale.data<C>(),
           out.shift.data<C>());
  });
}

}  // namespace

void bn_statistics_cuda(const BnStatisticsArgs& a, const BnStatistics& out) {
  MTCKI_DISPATCH_FLOAT(out.loss.dtype(), "bn_statistics", C, { run<C>(a, out); });
}

}  // namespace mtcki

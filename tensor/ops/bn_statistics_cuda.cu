#include <algorithm>
#include <cmath>

#include "tensor/kernels/channel_walk.cuh"
#include "tensor/ops/norm_kernels.h"

namespace mtcki {

namespace {

using cuda::kThreads;
using cuda::launch;

// C: of the results, P: of the statistics to compare with.
template <class C, class P>
struct Layer {
  const TwoSums* sums;
  const double* origin;
  int64_t parts;
  double *mean, *var;  // filled in between
  const P *running_mean, *running_var, *ema_mean, *ema_var;
  double momentum, n;
  int64_t channels;
  C *loss, *batch_mean, *batch_var, *scale, *shift;
};
constexpr int kMostLayers = 28;  // of a launch: it hands over at most 4 KB
template <class C, class P>
struct Layers {
  Layer<C, P> layer[kMostLayers];
};

// Mean and variance of all channels from the parts: every channel by several threads, each over its
// share of the parts, then by one.
template <class C, class P>
__device__ inline void merge_parts(const Layer<C, P>& l, TwoSums* shared) {
  const int thread = static_cast<int>(threadIdx.y);
  for (int64_t begin = 0; begin < l.channels; begin += kThreads) {
    const int width =
        static_cast<int>(l.channels - begin < kThreads ? l.channels - begin : int64_t{kThreads});
    const int shares = kThreads / width, share = thread / width;
    const int64_t c = begin + thread % width;
    TwoSums sum;
    if (share < shares) {
      MTCKI_UNROLL_BY(8)
      for (int64_t part = share; part < l.parts; part += shares)
        sum.merge(load_fresh(l.sums + part * l.channels + c));
    }
    shared[thread] = sum;
    __syncthreads();
    if (thread < width) {
      for (int other = 1; other < shares; ++other) sum.merge(shared[other * width + thread]);
      const MeanVariance m = mean_variance(sum, l.n);
      l.mean[c] = l.origin[c] + m.mean;
      l.var[c] = m.variance;
    }
    __syncthreads();
  }
}

// Block i, of layer i: dm, dv of every channel, their two norms, then what depends on the norms.
template <class C, class P>
__global__ void bn_statistics_kernel(Layers<C, P> layers) {
  __shared__ double shared[kThreads * sizeof(TwoSums) / sizeof(double)];
  TwoSums* sums = reinterpret_cast<TwoSums*>(shared);
  const Layer<C, P>& l = layers.layer[blockIdx.x];
  merge_parts(l, sums);
  const double k = l.momentum;
  const auto distance = [k](double batch, double running, double ema) {
    return (1 - k) * batch + k * ema - running;
  };
  TwoSums own[1];
  own[0] = TwoSums{};
  for (int64_t c = threadIdx.y; c < l.channels; c += kThreads) {
    const double dm = distance(l.mean[c], double(l.running_mean[c]), double(l.ema_mean[c]));
    const double dv = distance(l.var[c], double(l.running_var[c]), double(l.ema_var[c]));
    own[0].a += dm * dm;
    own[0].b += dv * dv;
  }
  merge_block<1>(own, sums);
  const double mean_norm = std::sqrt(sums[0].a), var_norm = std::sqrt(sums[0].b);
  const double a = mean_norm < 1e-12 ? 1e-12 : mean_norm, b = var_norm < 1e-12 ? 1e-12 : var_norm;
  if (threadIdx.y == 0) *l.loss = static_cast<C>(mean_norm + var_norm);
  for (int64_t c = threadIdx.y; c < l.channels; c += kThreads) {
    const double dm = distance(l.mean[c], double(l.running_mean[c]), double(l.ema_mean[c]));
    const double dv = distance(l.var[c], double(l.running_var[c]), double(l.ema_var[c]));
    const double s = (1 - k) * 2 * dv / (b * l.n);
    l.batch_mean[c] = static_cast<C>(l.mean[c]);
    l.batch_var[c] = static_cast<C>(l.var[c]);
    l.scale[c] = static_cast<C>(s);
    l.shift[c] = static_cast<C>((1 - k) * dm / (a * l.n) - s * l.mean[c]);
  }
}

// *sum = (add ? *sum : 0) + the losses of `count` layers, in their order.
template <class C, class P>
__global__ void sum_losses_kernel(Layers<C, P> layers, int count, bool add, C* sum) {
  C total = add ? *sum : C(0);
  for (int i = 0; i < count; ++i) total += *layers.layer[i].loss;
  *sum = total;
}

template <class C, class P>
void run_layers(const std::vector<BnStatisticsArgs>& args, const BnStatisticsSum& out) {
  int64_t channels = 0;
  for (const BnStatisticsArgs& a : args) channels += a.moments.origin.numel();
  const Tensor moments = Tensor::empty({2, channels}, DType::f64, out.loss.device());
  double *mean = moments.data<double>(), *var = mean + channels;
  for (size_t begin = 0; begin < args.size(); begin += kMostLayers) {
    const int count = static_cast<int>(std::min<size_t>(kMostLayers, args.size() - begin));
    Layers<C, P> layers{};
    for (int i = 0; i < count; ++i) {
      const BnStatisticsArgs& a = args[begin + static_cast<size_t>(i)];
      const BnStatistics& o = out.layers[begin + static_cast<size_t>(i)];
      const int64_t own = a.moments.origin.numel();
      layers.layer[i] = {static_cast<const TwoSums*>(a.moments.sums.raw()),
                         a.moments.origin.data<double>(),
                         a.moments.sums.size(0),
                         mean,
                         var,
                         a.running_mean.data<P>(),
                         a.running_var.data<P>(),
                         a.ema_mean.data<P>(),
                         a.ema_var.data<P>(),
                         a.momentum,
                         a.count,
                         own,
                         o.loss.data<C>(),
                         o.mean.data<C>(),
                         o.var.data<C>(),
                         o.scale.data<C>(),
                         o.shift.data<C>()};
      mean += own;
      var += own;
    }
    launch(bn_statistics_kernel<C, P>, dim3(static_cast<unsigned>(count)), dim3(1, kThreads), 0,
           layers);
    if (args.size() > 1)
      launch(sum_losses_kernel<C, P>, dim3(1), dim3(1), 0, layers, count, begin > 0,
             out.loss.data<C>());
  }
}

template <class C>
void run(const std::vector<BnStatisticsArgs>& args, const BnStatisticsSum& out) {
  MTCKI_DISPATCH_FLOAT(args.front().running_mean.dtype(), "bn_statistics", P,
                       { run_layers<C, P>(args, out); });
}

}  // namespace

void bn_statistics_cuda(const std::vector<BnStatisticsArgs>& layers, const BnStatisticsSum& out) {
  MTCKI_DISPATCH_FLOAT(out.loss.dtype(), "bn_statistics", C, { run<C>(layers, out); });
}

}  // namespace mtcki

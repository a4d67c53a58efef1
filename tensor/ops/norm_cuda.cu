#include <cmath>
#include <limits>

#include "tensor/ops/norm_cuda.cuh"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::kThreads;
using cuda::launch;

// ---- mean and variance ----

// Deviations from the channel's first value are added up, so that the variance of data with a large
// mean keeps its digits: in f32 from the first value of the thread, from there on in f64.
template <class T, int V, class Finish>
__global__ void __launch_bounds__(kThreads, 2)
    moments_kernel(const T* __restrict__ x, TwoSums* partial, unsigned* counters, ChannelGrid g,
                   Finish finish) {
  using C = compute_t<T>;
  MTCKI_DYNAMIC_SHARED(TwoSums, shared);
  const RowRange rows = rows_of_thread(g);
  const int64_t tile = blockIdx.y, c = first_channel(tile, V);
  TwoSums own[V];
  if (c < g.channels && rows.first < rows.end) {
    const auto first = load_values<V>(x, g.offset<V>(rows.first, c));
    const auto origin = load_values<V>(x, g.offset<V>(0, c));
    C sum[V] = {}, squares[V] = {};
    MTCKI_UNROLL_BY(8)
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const auto in = load_values<V>(x, g.offset<V>(row, c));
      for (int v = 0; v < V; ++v) {
        const C d = C(in.v[v]) - C(first.v[v]);
        sum[v] += d;
        squares[v] += d * d;
      }
    }
    const double n = static_cast<double>((rows.end - rows.first + rows.step - 1) / rows.step);
    for (int v = 0; v < V; ++v) {
      const double s = static_cast<double>(sum[v]);
      const double d = static_cast<double>(C(first.v[v])) - static_cast<double>(C(origin.v[v]));
      own[v].a = s + n * d;
      own[v].b = static_cast<double>(squares[v]) + d * (2 * s + n * d);
    }
  }
  cuda::next_may_start();
  finish_reduction<V>(own, shared, partial, counters, g, tile, [&](int64_t channel, TwoSums s) {
    const double n = static_cast<double>(g.rows), mean = s.a / n;
    const double m2 = s.b - mean * s.a;
    finish(channel, static_cast<double>(C(x[g.offset<V>(0, channel)])) + mean,
           (m2 < 0 ? 0 : m2) / n, n);  // a NaN stays
  });
}

// finish(c, mean, biased variance, n) for every channel of x.
template <class T, class Finish>
void reduce_moments(const Tensor& x, const Finish& finish) {
  const int pack = channel_pack<T>(x, {});
  const ChannelGrid g = reduction_grid(x, pack);
  const Tensor partial = partial_results<TwoSums>(x, g);
  with_pack<T>(pack, [&](auto v) {
    constexpr int V = v();
    launch(moments_kernel<T, V, Finish>, g.grid(), g.block(), reduction_bytes<TwoSums>(V),
           x.data<T>(), static_cast<TwoSums*>(partial.raw()), block_counters(), g, finish);
  });
}

struct WriteMoments {
  double *mean, *var;
  MTCKI_HD void operator()(int64_t c, double channel_mean, double variance, double) const {
    mean[c] = channel_mean;
    var[c] = variance;
  }
};

template <class C>
struct WriteBatchStatistics {
  C *mean, *invstd, *running_mean, *running_var;  // running ones may be null
  double momentum, eps;
  MTCKI_HD void operator()(int64_t c, double channel_mean, double variance, double n) const {
    mean[c] = static_cast<C>(channel_mean);
    invstd[c] = static_cast<C>(1.0 / std::sqrt(variance + eps));
    if (running_mean) move(running_mean[c], channel_mean);
    if (running_var) move(running_var[c], variance * n / (n - 1));
  }
  MTCKI_HD void move(C& r, double value) const {
    r = static_cast<C>((1 - momentum) * static_cast<double>(r) + momentum * value);
  }
};

// ---- the normalisation ----

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 4)
    apply_kernel(const T* __restrict__ x, const T* __restrict__ residual, T* __restrict__ y,
                 Normalisation<compute_t<T>> f, ChannelGrid g) {
  using C = compute_t<T>;
  cuda::wait_for_previous();
  const BackwardRows rows = backward_rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= g.channels) continue;
    const ChannelMap<V, C> map(f, c);
    MTCKI_UNROLL_BY(4)
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t at = g.offset<V>(rows.first - i * rows.step, c);
      const auto in = load_values<V>(x, at);
      Values<T, V> more, out;
      if (residual) more = load_values<V>(residual, at);
      for (int v = 0; v < V; ++v) {
        C value = bn_affine(C(in.v[v]), map.mean[v], map.scale[v], map.bias[v]);
        if (residual) value += C(more.v[v]);
        out.v[v] = T(f.act.value(value));
      }
      store_values(y, at, out);
    }
  }
}

template <class T>
void apply(const BatchNormArgs& a, const Tensor& mean, const Tensor& spread, bool spread_is_var,
           const Tensor& y) {
  using C = compute_t<T>;
  int pack = common_pack<T>({a.x, y, a.residual}, {mean, spread, a.weight, a.bias});
  const ChannelGrid g = map_grid(a.x, pack);
  with_pack<T>(pack, [&](auto v) {
    launch_after(!spread_is_var, apply_kernel<T, v()>, g, a.x.data<T>(), ptr<T>(a.residual),
                 y.data<T>(), normalisation<C>(a, mean, spread, spread_is_var), g);
  });
}

// ---- affine maps ----

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    affine_kernel(const T* __restrict__ x, const compute_t<T>* __restrict__ scales,
                  const compute_t<T>* __restrict__ shifts, const compute_t<T>* __restrict__ factor,
                  const T* sum, T* y, ChannelGrid g) {
  using C = compute_t<T>;
  const double by = static_cast<double>(*factor);
  const BackwardRows rows = backward_rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= g.channels) continue;
    C scale[V], shift[V];
    load_channels<V>(scales, c, scale);
    load_channels<V>(shifts, c, shift);
    for (int v = 0; v < V; ++v) {
      scale[v] = static_cast<C>(static_cast<double>(scale[v]) * by);
      shift[v] = static_cast<C>(static_cast<double>(shift[v]) * by);
    }
    MTCKI_UNROLL_BY(2)
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t at = g.offset<V>(rows.first - i * rows.step, c);
      const auto in = load_values<V>(x, at);
      Values<T, V> before, out;
      if (sum) before = load_values<V>(sum, at);
      for (int v = 0; v < V; ++v) {
        const C value = scale[v] * C(in.v[v]) + shift[v];
        out.v[v] = T(sum ? value + C(before.v[v]) : value);
      }
      store_values(y, at, out);
    }
  }
}

}  // namespace

void moments_cuda(const Tensor& x, const Tensor& mean, const Tensor& var) {
  if (x.numel() == 0)  // 0/0
    for (Tensor t : {mean, var}) t.fill_(std::numeric_limits<double>::quiet_NaN());
  MTCKI_DISPATCH_CUDA(x.dtype(), "channel_moments", T, {
    reduce_moments<T>(x, WriteMoments{mean.data<double>(), var.data<double>()});
  });
}

void batch_norm_train_cuda(const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
                           const Tensor& invstd, const Tensor& running_mean,
                           const Tensor& running_var, double momentum) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_train", T, {
    using C = compute_t<T>;
    reduce_moments<T>(
        a.x, WriteBatchStatistics<C>{mean.data<C>(), invstd.data<C>(), ptr<C>(running_mean),
                                     ptr<C>(running_var), momentum, a.eps});
    apply<T>(a, mean, invstd, false, y);
  });
}

void batch_norm_eval_cuda(const BatchNormArgs& a, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_eval", T,
                      { apply<T>(a, a.mean, a.var_or_invstd, true, y); });
}

void channel_affine_cuda(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& factor,
                         const Tensor& sum, const Tensor& out) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "channel_affine", T, {
    using C = compute_t<T>;
    const int pack = common_pack<T>({x, sum, out}, {a, b});
    const ChannelGrid g = map_grid(x, pack);
    with_pack<T>(pack, [&](auto v) {
      launch(affine_kernel<T, v()>, g.grid(), g.block(), 0, x.data<T>(), a.data<C>(), b.data<C>(),
             factor.data<C>(), ptr<T>(sum), out.data<T>(), g);
    });
  });
}

}  // namespace mtcki

#include <cmath>

#include "tensor/ops/norm_cuda.cuh"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::kThreads;
using cuda::launch;
using cuda::launch_early;
using cuda::launch_small_early;

// What batch norm makes of the values at `at`; residual may be null.
template <int V, class T, class C>
__device__ inline Values<T, V> normalised(const Normalisation<C>& f, const ChannelMap<V, C>& map,
                                          const Values<T, V>& in, const T* residual, int64_t at) {
  Values<T, V> more, out;
  if (residual) more = load_values<V>(residual, at);
  for (int v = 0; v < V; ++v) {
    C value = bn_affine(C(in.v[v]), map.mean[v], map.scale[v], map.bias[v]);
    if (residual) value += C(more.v[v]);
    out.v[v] = T(f.act.value(value));
  }
  return out;
}

// ---- mean and variance ----

// What moments_kernel does besides with the values that it reads.
struct Nothing {
  template <int V>
  struct InThread {
    __device__ InThread(const Nothing&, int64_t) {}
    template <class In>
    __device__ void operator()(const Nothing&, const In&, int64_t) const {}
  };
};
template <class T>
struct Normalise {
  Normalisation<compute_t<T>> f;
  const T* __restrict__ residual;  // may be null
  T* __restrict__ y;
  template <int V>
  struct InThread {
    ChannelMap<V, compute_t<T>> map;
    __device__ InThread(const Normalise& n, int64_t channel) : map(n.f, channel) {}
    __device__ void operator()(const Normalise& n, const Values<T, V>& in, int64_t at) const {
      store_values(n.y, at, normalised<V>(n.f, map, in, n.residual, at));
    }
  };
};

// What becomes of a block's sums: they stay, with the channels' first values.
struct KeepSums {
  double* origin;
  template <int V, class T>
  __device__ void operator()(TwoSums (&own)[V], TwoSums* shared, TwoSums* partial,
                             const ChannelGrid& g, const T* x) const {
    const int64_t tile = blockIdx.y, c = first_channel(tile, V);
    if (blockIdx.x == 0 && threadIdx.y == 0 && c < g.channels)
      for (int v = 0; v < V; ++v)
        origin[c + v] = static_cast<double>(compute_t<T>(x[g.offset<V>(0, c) + v]));
    write_block_sums<V>(own, shared, partial, g, tile);
  }
};
// Or the last block goes on: finish(c, mean, biased variance, n) for every channel.
template <class Finish>
struct FinishSums {
  unsigned* counters;
  Finish finish;
  template <int V, class T>
  __device__ void operator()(TwoSums (&own)[V], TwoSums* shared, TwoSums* partial,
                             const ChannelGrid& g, const T* x) const {
    finish_reduction<V>(
        own, shared, partial, counters, g, blockIdx.y, [&](int64_t channel, TwoSums s) {
          const double n = static_cast<double>(g.rows);
          const MeanVariance m = mean_variance(s, n);
          const T origin = x[g.offset<V>(0, channel)];
          finish(channel, static_cast<double>(compute_t<T>(origin)) + m.mean, m.variance, n);
        });
  }
};

// Deviations from the channel's first value are added up, so that the variance of data with a large
// mean keeps its digits: in f32 from the first value of the thread, from there on in f64.
template <class T, int V, class End, class Also>
__global__ void __launch_bounds__(kThreads, 2)
    moments_kernel(const T* __restrict__ x, TwoSums* partial, ChannelGrid g, End end, Also also) {
  using C = compute_t<T>;
  MTCKI_DYNAMIC_SHARED(TwoSums, shared);
  cuda::wait_for_previous();
  const RowRange rows = rows_of_thread(g);
  const int64_t tile = blockIdx.y, c = first_channel(tile, V);
  TwoSums own[V];
  if (c < g.channels && rows.first < rows.end) {
    const auto first = load_values<V>(x, g.offset<V>(rows.first, c));
    const auto origin = load_values<V>(x, g.offset<V>(0, c));
    const typename Also::template InThread<V> do_also(also, c);
    C sum[V] = {}, squares[V] = {};
    MTCKI_UNROLL_BY(8)
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const int64_t at = g.offset<V>(row, c);
      const auto in = load_values<V>(x, at);
      do_also(also, in, at);
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
  end(own, shared, partial, g, x);
}

// Threads take `pack` channels.
template <class T, class End, class Also>
void launch_moments(const Tensor& x, int pack, const ChannelGrid& g, const Tensor& partial,
                    const End& end, const Also& also) {
  with_pack<T>(pack, [&](auto v) {
    constexpr int V = v();
    launch_small_early(x.nbytes(), moments_kernel<T, V, End, Also>, g.grid(), g.block(),
                       reduction_bytes<TwoSums>(V), x.data<T>(),
                       static_cast<TwoSums*>(partial.raw()), g, end, also);
  });
}

template <class T, class Also = Nothing>
void keep_moment_sums(const Tensor& x, int pack, MomentSums* out, const Also& also = {}) {
  const ChannelGrid g = reduction_grid(x, pack);
  const int64_t channels = x.size(1);
  out->sums = x.numel() ? Tensor::empty({g.parts, channels, 2}, DType::f64, x.device())
                        : Tensor::zeros({1, channels, 2}, DType::f64, x.device());
  out->origin = x.numel() ? Tensor::empty({channels}, DType::f64, x.device())
                          : Tensor::zeros({channels}, DType::f64, x.device());
  if (x.numel())
    launch_moments<T>(x, pack, g, out->sums, KeepSums{out->origin.data<double>()}, also);
}

__global__ void finish_moments_kernel(const TwoSums* __restrict__ sums,
                                      const double* __restrict__ origin, int64_t parts,
                                      int64_t channels, double n, double* mean, double* var) {
  MTCKI_GRID_LOOP(c, channels) {
    TwoSums s;
    for (int64_t part = 0; part < parts; ++part) s.merge(sums[part * channels + c]);
    const MeanVariance m = mean_variance(s, n);
    mean[c] = origin[c] + m.mean;
    var[c] = m.variance;
  }
}

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
      store_values(y, at, normalised<V>(f, map, in, residual, at));
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
    launch_early(apply_kernel<T, v()>, g.grid(), g.block(), 0, a.x.data<T>(), ptr<T>(a.residual),
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

void moment_sums_cuda(const Tensor& x, MomentSums* out) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "channel_moments", T,
                      { keep_moment_sums<T>(x, channel_pack<T>(x, {}), out); });
}

void finish_moments_cuda(const MomentSums& sums, double count, const ChannelMoments& out) {
  const int64_t channels = sums.origin.numel();
  launch(finish_moments_kernel, cuda::grid_for(channels), kThreads, 0,
         static_cast<const TwoSums*>(sums.sums.raw()), sums.origin.data<double>(),
         sums.sums.size(0), channels, count, out.mean.data<double>(), out.var.data<double>());
}

void batch_norm_train_cuda(const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
                           const Tensor& invstd, const Tensor& running_mean,
                           const Tensor& running_var, double momentum) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_train", T, {
    using C = compute_t<T>;
    const WriteBatchStatistics<C> write{mean.data<C>(),      invstd.data<C>(), ptr<C>(running_mean),
                                        ptr<C>(running_var), momentum,         a.eps};
    const int pack = channel_pack<T>(a.x, {});
    const ChannelGrid g = reduction_grid(a.x, pack);
    launch_moments<T>(a.x, pack, g, partial_results<TwoSums>(a.x, g),
                      FinishSums<WriteBatchStatistics<C>>{block_counters(), write}, Nothing());
    if (y.defined()) apply<T>(a, mean, invstd, false, y);
  });
}

void batch_norm_apply_cuda(const BatchNormArgs& a, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_apply", T,
                      { apply<T>(a, a.mean, a.var_or_invstd, false, y); });
}

void batch_norm_eval_cuda(const BatchNormArgs& a, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_eval", T,
                      { apply<T>(a, a.mean, a.var_or_invstd, true, y); });
}

void batch_norm_eval_moments_cuda(const BatchNormArgs& a, const Tensor& y, MomentSums* out) {
  MTCKI_DISPATCH_CUDA(a.x.dtype(), "batch_norm_eval", T, {
    using C = compute_t<T>;
    const int pack =
        common_pack<T>({a.x, y, a.residual}, {a.mean, a.var_or_invstd, a.weight, a.bias});
    const Normalise<T> also{normalisation<C>(a, a.mean, a.var_or_invstd, true), ptr<T>(a.residual),
                            y.data<T>()};
    keep_moment_sums<T>(a.x, pack, out, also);
  });
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

#include <cmath>

#include "tensor/ops/channel_walk.cuh"
#include "tensor/ops/functors.h"
#include "tensor/ops/norm_kernels.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::kThreads;
using cuda::launch;

template <class T>
T* ptr(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// ---- mean and variance ----

// Each thread takes the mean of its first rows as the origin of its sums, so that the variance of
// data with a large mean keeps its digits; from there on means and deviations are merged in f64.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    moments_kernel(const T* __restrict__ x, Spread* __restrict__ partial, ChannelGrid g) {
  using C = compute_t<T>;
  MTCKI_DYNAMIC_SHARED(Spread, shared);
  const RowRange rows = rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    Spread own[V];
    if (c < g.channels && rows.first < rows.end) {
      const int64_t n = (rows.end - rows.first + rows.step - 1) / rows.step;
      const int64_t head = n < 4 ? n : 4;
      C origin[V] = {}, sum[V] = {}, squares[V] = {};
      for (int64_t i = 0; i < head; ++i) {
        const auto in = load_values<V>(x, g.offset(rows.first + i * rows.step, c));
        for (int v = 0; v < V; ++v) origin[v] += C(in.v[v]);
      }
      for (int v = 0; v < V; ++v) origin[v] /= static_cast<C>(head);
      MTCKI_UNROLL_BY(4)
      for (int64_t row = rows.first; row < rows.end; row += rows.step) {
        const auto in = load_values<V>(x, g.offset(row, c));
        for (int v = 0; v < V; ++v) {
          const C d = C(in.v[v]) - origin[v];
          sum[v] += d;
          squares[v] += d * d;
        }
      }
      const double count = static_cast<double>(n);
      for (int v = 0; v < V; ++v) {
        const double s = static_cast<double>(sum[v]);
        const double m2 = static_cast<double>(squares[v]) - s * s / count;
        own[v].n = count;
        own[v].mean = static_cast<double>(origin[v]) + s / count;
        own[v].m2 = m2 < 0 ? 0 : m2;  // a NaN stays
      }
    }
    merge_block<V>(own, shared);
    if (threadIdx.y == 0 && c < g.channels)
      for (int v = 0; v < V; ++v) partial[blockIdx.x * g.channels + c + v] = own[v];
  }
}

// finish(c, Spread) for every channel of x.
template <class T, class Finish>
void reduce_moments(const Tensor& x, const Finish& finish) {
  const int pack = channel_pack<T>(x, {});
  const ChannelGrid g = reduction_grid(x, pack);
  const Tensor partial = partial_results<Spread>(x, g);
  with_pack<T>(pack, [&](auto v) {
    constexpr int V = v();
    launch(moments_kernel<T, V>, g.grid(), g.block(), V * kThreads * sizeof(Spread), x.data<T>(),
           static_cast<Spread*>(partial.raw()), g);
  });
  merge_parts<Spread>(partial, g, finish);
}

MTCKI_HD inline double variance_of(const Spread& s) { return s.m2 / s.n; }

struct WriteMoments {
  double *mean, *var;
  MTCKI_HD void operator()(int64_t c, const Spread& s) const {
    const double variance = variance_of(s);
    mean[c] = s.n > 0 ? s.mean : variance;  // 0/0 of an empty batch
    var[c] = variance;
  }
};

template <class C>
struct WriteBatchStatistics {
  C *mean, *invstd, *running_mean, *running_var;  // running ones may be null
  double momentum, eps;
  MTCKI_HD void operator()(int64_t c, const Spread& s) const {
    const double var = variance_of(s);
    mean[c] = static_cast<C>(s.mean);
    invstd[c] = static_cast<C>(1.0 / std::sqrt(var + eps));
    if (running_mean) move(running_mean[c], s.mean);
    if (running_var) move(running_var[c], var * s.n / (s.n - 1));
  }
  MTCKI_HD void move(C& r, double value) const {
    r = static_cast<C>((1 - momentum) * static_cast<double>(r) + momentum * value);
  }
};

// ---- the normalisation ----

// act none: every value passes; relu: slope 0.
template <class C>
struct RunTimeActivation {
  bool on;
  C slope;
  MTCKI_HD C value(C y) const { return on && y < C(0) ? scaled(y) : y; }
  MTCKI_HD C grad(C gy, C y) const { return on && y <= C(0) ? scaled(gy) : gy; }
  MTCKI_HD C scaled(C v) const { return slope == C(0) ? C(0) : slope * v; }
};

template <class C>
struct Normalisation {
  const C *mean, *spread, *weight, *bias;  // weight, bias may be null
  bool spread_is_var;                      // else 1/sqrt(var + eps)
  C eps;
  RunTimeActivation<C> act;
  MTCKI_HD C invstd(int64_t c) const {
    return spread_is_var ? C(1) / std::sqrt(spread[c] + eps) : spread[c];
  }
  MTCKI_HD C scale(int64_t c) const { return (weight ? weight[c] : C(1)) * invstd(c); }
  MTCKI_HD C shift(int64_t c) const { return bias ? bias[c] : C(0); }
};

template <class C>
Normalisation<C> normalisation(const BatchNormArgs& a, const Tensor& mean, const Tensor& spread,
                               bool spread_is_var) {
  const bool on = a.act.kind != Activation::Kind::none;
  const bool leaky = a.act.kind == Activation::Kind::leaky_relu;
  return {mean.data<C>(),
          spread.data<C>(),
          ptr<C>(a.weight),
          ptr<C>(a.bias),
          spread_is_var,
          static_cast<C>(a.eps),
          {on, static_cast<C>(leaky ? a.act.slope : 0.0)}};
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(const T* __restrict__ x, const T* __restrict__ residual, T* __restrict__ y,
                 Normalisation<compute_t<T>> f, ChannelGrid g) {
  using C = compute_t<T>;
  const RowRange rows = rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= g.channels) continue;
    C mean[V], scale[V], bias[V];
    for (int v = 0; v < V; ++v) {
      mean[v] = f.mean[c + v];
      scale[v] = f.scale(c + v);
      bias[v] = f.shift(c + v);
    }
    MTCKI_UNROLL_BY(2)
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const int64_t at = g.offset(row, c);
      const auto in = load_values<V>(x, at);
      Values<T, V> more, out;
      if (residual) more = load_values<V>(residual, at);
      for (int v = 0; v < V; ++v) {
        C value = bn_affine(C(in.v[v]), mean[v], scale[v], bias[v]);
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
  const int pack =
      a.residual.defined() ? channel_pack<T>(a.x, {y, a.residual}) : channel_pack<T>(a.x, {y});
  const ChannelGrid g = map_grid(a.x, pack);
  with_pack<T>(pack, [&](auto v) {
    launch(apply_kernel<T, v()>, g.grid(), g.block(), 0, a.x.data<T>(), ptr<T>(a.residual),
           y.data<T>(), normalisation<C>(a, mean, spread, spread_is_var), g);
  });
}

// ---- gradients ----

// The tensors that a gradient reads; x and y may be null.
template <class T>
struct GradInputs {
  const T *gy, *x, *y;
};
// The gradient at the output of the normalisation: gy*act'(.), the mask from y or again from x.
template <class T, int V, class C>
__device__ inline void masked(const GradInputs<T>& in, const Normalisation<C>& f, int64_t at,
                              const C* mean, const C* scale, const C* bias, C* g, C* centred) {
  const auto gy = load_values<V>(in.gy, at);
  Values<T, V> x, y;
  if (in.x) x = load_values<V>(in.x, at);
  if (in.y) y = load_values<V>(in.y, at);
  for (int v = 0; v < V; ++v) {
    centred[v] = in.x ? C(x.v[v]) - mean[v] : C(0);
    const C sign = in.y ? C(y.v[v]) : centred[v] * scale[v] + bias[v];
    g[v] = f.act.grad(C(gy.v[v]), sign);
  }
}

// Sums of g and of g*(x - mean).
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    grad_sums_kernel(GradInputs<T> in, TwoSums* __restrict__ partial, Normalisation<compute_t<T>> f,
                     ChannelGrid grid) {
  using C = compute_t<T>;
  MTCKI_DYNAMIC_SHARED(TwoSums, shared);
  const RowRange rows = rows_of_thread(grid);
  for (int64_t tile = blockIdx.y; tile < grid.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    TwoSums own[V];
    if (c < grid.channels) {
      C mean[V], scale[V], bias[V], sum[V] = {}, product[V] = {};
      for (int v = 0; v < V; ++v) {
        mean[v] = f.mean[c + v];
        scale[v] = f.scale(c + v);
        bias[v] = f.shift(c + v);
      }
      MTCKI_UNROLL_BY(2)
      for (int64_t row = rows.first; row < rows.end; row += rows.step) {
        C g[V], centred[V];
        masked<T, V>(in, f, grid.offset(row, c), mean, scale, bias, g, centred);
        for (int v = 0; v < V; ++v) {
          sum[v] += g[v];
          product[v] += g[v] * centred[v];
        }
      }
      for (int v = 0; v < V; ++v) {
        own[v].a = static_cast<double>(sum[v]);
        own[v].b = static_cast<double>(product[v]);
      }
    }
    merge_block<V>(own, shared);
    if (threadIdx.y == 0 && c < grid.channels)
      for (int v = 0; v < V; ++v) partial[blockIdx.x * grid.channels + c + v] = own[v];
  }
}

// gx = scale*g + slope*(x - mean) + constant, the latter two 0 when the statistics are fixed.
template <class C>
struct WriteGradSums {
  Normalisation<C> f;
  double n;
  C *gweight, *gbias, *slope, *constant;  // may be null, in pairs
  MTCKI_HD void operator()(int64_t c, const TwoSums& s) const {
    const double inv = static_cast<double>(f.invstd(c)), scale = static_cast<double>(f.scale(c));
    if (gweight) {
      gweight[c] = static_cast<C>(s.b * inv);
      gbias[c] = static_cast<C>(s.a);
    }
    if (slope) {
      slope[c] = static_cast<C>(-scale * inv * inv * s.b / n);
      constant[c] = static_cast<C>(-scale * s.a / n);
    }
  }
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    grad_apply_kernel(GradInputs<T> in, const compute_t<T>* __restrict__ slopes,
                      const compute_t<T>* __restrict__ constants, T* __restrict__ gx,
                      T* __restrict__ gresidual, Normalisation<compute_t<T>> f, ChannelGrid grid) {
  using C = compute_t<T>;
  const RowRange rows = rows_of_thread(grid);
  for (int64_t tile = blockIdx.y; tile < grid.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= grid.channels) continue;
    C mean[V], scale[V], bias[V], slope[V], constant[V];
    for (int v = 0; v < V; ++v) {
      mean[v] = f.mean[c + v];
      scale[v] = f.scale(c + v);
      bias[v] = f.shift(c + v);
      slope[v] = slopes ? slopes[c + v] : C(0);
      constant[v] = slopes ? constants[c + v] : C(0);
    }
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const int64_t at = grid.offset(row, c);
      C g[V], centred[V];
      masked<T, V>(in, f, at, mean, scale, bias, g, centred);
      Values<T, V> out;
      if (gresidual) {
        for (int v = 0; v < V; ++v) out.v[v] = T(g[v]);
        store_values(gresidual, at, out);
      }
      if (gx) {
        for (int v = 0; v < V; ++v) {
          C value = scale[v] * g[v];
          if (slopes) value += slope[v] * centred[v] + constant[v];
          out.v[v] = T(value);
        }
        store_values(gx, at, out);
      }
    }
  }
}

template <class T>
void grad(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train, const Tensor& gx,
          const Tensor& gweight, const Tensor& gbias, const Tensor& gresidual) {
  using C = compute_t<T>;
  const auto f = normalisation<C>(a, a.mean, a.var_or_invstd, !train);
  int pack = channel_pack<T>(gy, {});
  for (const Tensor& t : {a.x, y, gx, gresidual})
    if (t.defined()) pack = std::min(pack, channel_pack<T>(t, {}));
  // Without a mask y is not given, and x is read only where the result needs it.
  const bool coupled = train && gx.defined();
  GradInputs<T> in{gy.data<T>(), ptr<T>(a.x), ptr<T>(y)};
  Tensor coefficients;
  if (gweight.defined() || coupled) {
    const ChannelGrid g = reduction_grid(gy, pack);
    const Tensor partial = partial_results<TwoSums>(gy, g);
    with_pack<T>(pack, [&](auto v) {
      constexpr int V = v();
      launch(grad_sums_kernel<T, V>, g.grid(), g.block(), V * kThreads * sizeof(TwoSums), in,
             static_cast<TwoSums*>(partial.raw()), f, g);
    });
    if (coupled) coefficients = Tensor::empty({2, g.channels}, dtype_of<C>::value, gy.device());
    C* slope = ptr<C>(coefficients);
    merge_parts<TwoSums>(
        partial, g,
        WriteGradSums<C>{f, static_cast<double>(g.rows), ptr<C>(gweight), ptr<C>(gbias), slope,
                         slope ? slope + g.channels : slope});
  }
  if (!gx.defined() && !gresidual.defined()) return;
  if (!coupled && (in.y || !f.act.on)) in.x = nullptr;
  const ChannelGrid g = map_grid(gy, pack);
  const C* slope = ptr<C>(coefficients);
  with_pack<T>(pack, [&](auto v) {
    launch(grad_apply_kernel<T, v()>, g.grid(), g.block(), 0, in, slope,
           slope ? slope + g.channels : slope, ptr<T>(gx), ptr<T>(gresidual), f, g);
  });
}

// ---- affine maps ----

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    affine_kernel(const T* __restrict__ x, const compute_t<T>* __restrict__ scales,
                  const compute_t<T>* __restrict__ shifts, const compute_t<T>* __restrict__ factor,
                  T* __restrict__ y, ChannelGrid g) {
  using C = compute_t<T>;
  const double by = static_cast<double>(*factor);
  const RowRange rows = rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= g.channels) continue;
    C scale[V], shift[V];
    for (int v = 0; v < V; ++v) {
      scale[v] = static_cast<C>(static_cast<double>(scales[c + v]) * by);
      shift[v] = static_cast<C>(static_cast<double>(shifts[c + v]) * by);
    }
    MTCKI_UNROLL_BY(2)
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const int64_t at = g.offset(row, c);
      const auto in = load_values<V>(x, at);
      Values<T, V> out;
      for (int v = 0; v < V; ++v) out.v[v] = T(scale[v] * C(in.v[v]) + shift[v]);
      store_values(y, at, out);
    }
  }
}

}  // namespace

void moments_cuda(const Tensor& x, const Tensor& mean, const Tensor& var) {
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

void batch_norm_grad_cuda(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                          const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                          const Tensor& gresidual) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "batch_norm_grad", T,
                      { grad<T>(gy, a, y, train, gx, gweight, gbias, gresidual); });
}

void channel_affine_cuda(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& factor,
                         const Tensor& out) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "channel_affine", T, {
    using C = compute_t<T>;
    const int pack = channel_pack<T>(x, {out});
    const ChannelGrid g = map_grid(x, pack);
    with_pack<T>(pack, [&](auto v) {
      launch(affine_kernel<T, v()>, g.grid(), g.block(), 0, x.data<T>(), a.data<C>(), b.data<C>(),
             factor.data<C>(), out.data<T>(), g);
    });
  });
}

}  // namespace mtcki

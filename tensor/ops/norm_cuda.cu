#include <cmath>
#include <limits>

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

// How many channels a thread takes of all these activations and [C] operands; some may be
// undefined.
template <class T>
int common_pack(std::initializer_list<Tensor> activations,
                std::initializer_list<Tensor> per_channel) {
  int pack = channels_aligned(per_channel) ? static_cast<int>(16 / sizeof(T)) : 1;
  for (const Tensor& t : activations)
    if (t.defined()) pack = std::min(pack, channel_pack<T>(t, {}));
  return pack;
}

// The second kernel of a pair. It may start before the first has ended when that was a reduction of
// ours over the same tensors; after anything else it would read what is not there yet.
template <class... P>
void launch_after(bool reduction, void (*kernel)(P...), const ChannelGrid& g,
                  std::type_identity_t<P>... args) {
  if (reduction) {
    cuda::launch_early(kernel, g.grid(), g.block(), 0, args...);
  } else {
    launch(kernel, g.grid(), g.block(), 0, args...);
  }
}

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
  MTCKI_HD C invstd(C s) const { return spread_is_var ? C(1) / std::sqrt(s + eps) : s; }
};
// What it does to the channels of a thread.
template <int V, class C>
struct ChannelMap {
  C mean[V], scale[V], bias[V];
  __device__ ChannelMap(const Normalisation<C>& f, int64_t channel) {
    load_channels<V>(f.mean, channel, mean);
    load_channels<V>(f.weight, channel, scale, C(1));
    load_channels<V>(f.bias, channel, bias);
    C spread[V];
    load_channels<V>(f.spread, channel, spread);
    for (int v = 0; v < V; ++v) scale[v] *= f.invstd(spread[v]);
  }
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

// ---- gradients ----

// The tensors that a gradient reads; all but gy may be null.
template <class T>
struct GradInputs {
  const T *gy, *x, *y, *sum;
};
// Which of them there are besides gy, known when a kernel is compiled, so that several rows are in
// flight at once; kAsked: seen at run time, for the narrow walks of plain tensors.
enum Reads { kReadsX = 1, kReadsY = 2, kReadsSum = 4, kAsked = 8 };
template <class T, int V, int R>
struct GradRow {
  Values<T, V> gy, x, y, sum;
  static __device__ bool has(const GradInputs<T>& in, Reads which) {
    if (R != kAsked) return (R & which) != 0;
    return (which == kReadsX ? in.x : which == kReadsY ? in.y : in.sum) != nullptr;
  }
  __device__ void load(const GradInputs<T>& in, int64_t at) {
    gy = load_values<V>(in.gy, at);
    x = has(in, kReadsX) ? load_values<V>(in.x, at) : Values<T, V>{};
    y = has(in, kReadsY) ? load_values<V>(in.y, at) : Values<T, V>{};
    sum = has(in, kReadsSum) ? load_values<V>(in.sum, at) : Values<T, V>{};
  }
  // The gradient at the output of the normalisation: gy*act'(.), the mask from y or again from x.
  template <class C>
  __device__ void masked(const GradInputs<T>& in, const RunTimeActivation<C>& act,
                         const ChannelMap<V, C>& map, C (&g)[V], C (&centred)[V]) const {
    for (int v = 0; v < V; ++v) {
      centred[v] = has(in, kReadsX) ? C(x.v[v]) - map.mean[v] : C(0);
      const C sign = has(in, kReadsY) ? C(y.v[v]) : centred[v] * map.scale[v] + map.bias[v];
      g[v] = act.grad(C(gy.v[v]), sign);
    }
  }
};
template <int R>
constexpr int kRowsAtOnce = R == kAsked    ? 1
                            : R == kReadsX ? 4
                                           : 2;

// f(the Reads of `in` as a compile-time constant). In a sum over rows there is no `sum`.
template <int V, class T, class F>
void with_reads(const GradInputs<T>& in, const F& f) {
  const int reads = (in.x ? kReadsX : 0) | (in.y ? kReadsY : 0) | (in.sum ? kReadsSum : 0);
  if constexpr (V > 1 && sizeof(T) < 8) {
    switch (reads) {
      case kReadsX:
        return f(std::integral_constant<int, kReadsX>());
      case kReadsX | kReadsY:
        return f(std::integral_constant<int, kReadsX | kReadsY>());
      case kReadsX | kReadsSum:
        return f(std::integral_constant<int, kReadsX | kReadsSum>());
      case kReadsX | kReadsY | kReadsSum:
        return f(std::integral_constant<int, kReadsX | kReadsY | kReadsSum>());
      default:
        break;
    }
  }
  f(std::integral_constant<int, kAsked>());
}

// gx = scale*g + slope*(x - mean) + constant, the latter two 0 when the statistics are fixed.
template <class C>
struct WriteGradSums {
  Normalisation<C> f;
  double n;
  C *gweight, *gbias, *slope, *constant;  // may be null, in pairs
  MTCKI_HD void operator()(int64_t c, const TwoSums& s) const {
    const double inv = static_cast<double>(f.invstd(f.spread[c]));
    const double scale = f.weight ? static_cast<double>(f.weight[c]) * inv : inv;
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

// Sums of g and of g*(x - mean). Writes g where that is wanted.
template <class T, int V, int R>
__global__ void __launch_bounds__(kThreads, 2)
    grad_sums_kernel(GradInputs<T> in, T* __restrict__ gresidual, TwoSums* partial,
                     unsigned* counters, Normalisation<compute_t<T>> f, ChannelGrid grid,
                     WriteGradSums<compute_t<T>> finish) {
  using C = compute_t<T>;
  constexpr int kAtOnce = kRowsAtOnce<R>;
  MTCKI_DYNAMIC_SHARED(TwoSums, shared);
  const RowRange rows = rows_of_thread(grid);
  const int64_t tile = blockIdx.y, c = first_channel(tile, V);
  TwoSums own[V];
  if (c < grid.channels) {
    const ChannelMap<V, C> map(f, c);
    C sum[V] = {}, product[V] = {};
    const auto add = [&](const GradRow<T, V, R>& row, int64_t at) {
      C g[V], centred[V];
      row.masked(in, f.act, map, g, centred);
      if (gresidual) {
        Values<T, V> out;
        for (int v = 0; v < V; ++v) out.v[v] = T(g[v]);
        store_values(gresidual, at, out);
      }
      for (int v = 0; v < V; ++v) {
        sum[v] += g[v];
        product[v] += g[v] * centred[v];
      }
    };
    int64_t r = rows.first;
    for (; r + (kAtOnce - 1) * rows.step < rows.end; r += kAtOnce * rows.step) {
      GradRow<T, V, R> row[kAtOnce];
      MTCKI_UNROLL
      for (int u = 0; u < kAtOnce; ++u) row[u].load(in, grid.offset<V>(r + u * rows.step, c));
      MTCKI_UNROLL
      for (int u = 0; u < kAtOnce; ++u) add(row[u], grid.offset<V>(r + u * rows.step, c));
    }
    for (; r < rows.end; r += rows.step) {
      GradRow<T, V, R> row;
      row.load(in, grid.offset<V>(r, c));
      add(row, grid.offset<V>(r, c));
    }
    for (int v = 0; v < V; ++v) {
      own[v].a = static_cast<double>(sum[v]);
      own[v].b = static_cast<double>(product[v]);
    }
  }
  cuda::next_may_start();
  finish_reduction<V>(own, shared, partial, counters, grid, tile, finish);
}

// What gx gets besides scale*g, per channel: slope*(x - mean) + constant. Of the batch statistics
// (both null: fixed) and of a statistics loss, factor*(scales*x + shifts) (factor null: none).
template <class C>
struct Couplings {
  const C *slope, *constant, *factor, *scales, *shifts;
};

template <class T, int V, int R>
__global__ void __launch_bounds__(kThreads, 2)
    grad_apply_kernel(GradInputs<T> in, Couplings<compute_t<T>> more, T* __restrict__ gx,
                      T* __restrict__ gresidual, Normalisation<compute_t<T>> f, ChannelGrid grid) {
  using C = compute_t<T>;
  using Row = GradRow<T, V, R>;
  constexpr int kAtOnce = kRowsAtOnce<R>;
  cuda::wait_for_previous();
  const BackwardRows rows = backward_rows_of_thread(grid);
  for (int64_t tile = blockIdx.y; tile < grid.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= grid.channels) continue;
    const ChannelMap<V, C> map(f, c);
    C slope[V], constant[V];
    load_channels<V>(more.slope, c, slope);
    load_channels<V>(more.constant, c, constant);
    if (more.factor) {
      const double factor = static_cast<double>(*more.factor);
      C scales[V], shifts[V];
      load_channels<V>(more.scales, c, scales);
      load_channels<V>(more.shifts, c, shifts);
      for (int v = 0; v < V; ++v) {  // scales*x + shifts = scales*(x - mean) + what is added here
        const double s = static_cast<double>(scales[v]);
        slope[v] += static_cast<C>(factor * s);
        constant[v] += static_cast<C>(
            factor * (static_cast<double>(shifts[v]) + s * static_cast<double>(map.mean[v])));
      }
    }
    const bool coupled = more.slope || more.factor;
    const auto write = [&](const Row& row, int64_t at) {
      C g[V], centred[V];
      row.masked(in, f.act, map, g, centred);
      Values<T, V> out;
      if (gresidual) {
        for (int v = 0; v < V; ++v) out.v[v] = T(g[v]);
        store_values(gresidual, at, out);
      }
      if (gx) {
        for (int v = 0; v < V; ++v) {
          C value = map.scale[v] * g[v];
          if (coupled) value += slope[v] * centred[v] + constant[v];
          if (Row::has(in, kReadsSum)) value += C(row.sum.v[v]);
          out.v[v] = T(value);
        }
        store_values(gx, at, out);
      }
    };
    const auto place = [&](int64_t i) { return grid.offset<V>(rows.first - i * rows.step, c); };
    int64_t i = 0;
    for (; i + kAtOnce <= rows.count; i += kAtOnce) {
      Row row[kAtOnce];
      MTCKI_UNROLL
      for (int u = 0; u < kAtOnce; ++u) row[u].load(in, place(i + u));
      MTCKI_UNROLL
      for (int u = 0; u < kAtOnce; ++u) write(row[u], place(i + u));
    }
    for (; i < rows.count; ++i) {
      Row row;
      row.load(in, place(i));
      write(row, place(i));
    }
  }
}

template <class T>
void grad(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train, const Tensor& gx,
          const Tensor& gweight, const Tensor& gbias, const Tensor& gresidual) {
  using C = compute_t<T>;
  auto f = normalisation<C>(a, a.mean, a.var_or_invstd, !train);
  const GradientSum::Statistics& loss = a.statistics;
  const int pack =
      common_pack<T>({gy, a.x, y, a.sum, gx, gresidual},
                     {a.mean, a.var_or_invstd, a.weight, a.bias, loss.scale, loss.shift});
  // Without a mask y is not given, and x is read only where the result needs it.
  const bool coupled = train && gx.defined();
  GradInputs<T> in{gy.data<T>(), ptr<T>(a.x), ptr<T>(y), nullptr};
  T* masked_gradient = ptr<T>(gresidual);
  bool summed = false;
  Couplings<C> more{nullptr, nullptr, ptr<C>(loss.g), ptr<C>(loss.scale), ptr<C>(loss.shift)};
  if (gy.numel() == 0 && gweight.defined())
    for (Tensor t : {gweight, gbias}) t.zero_();
  Tensor coefficients;
  if (gweight.defined() || coupled) {
    const ChannelGrid g = reduction_grid(gy, pack);
    const Tensor partial = partial_results<TwoSums>(gy, g);
    if (coupled) {
      coefficients = Tensor::empty({2, (g.channels + 3) / 4 * 4}, dtype_of<C>::value, gy.device());
      more.slope = coefficients.data<C>();
      more.constant = more.slope + coefficients.size(1);
    }
    const WriteGradSums<C> finish{f,
                                  static_cast<double>(g.rows),
                                  ptr<C>(gweight),
                                  ptr<C>(gbias),
                                  const_cast<C*>(more.slope),
                                  const_cast<C*>(more.constant)};
    with_pack<T>(pack, [&](auto v) {
      constexpr int V = v();
      with_reads<V>(in, [&](auto reads) {
        launch(grad_sums_kernel<T, V, reads()>, g.grid(), g.block(), reduction_bytes<TwoSums>(V),
               in, masked_gradient, static_cast<TwoSums*>(partial.raw()), block_counters(), f, g,
               finish);
      });
    });
    summed = true;
    if (masked_gradient) {  // it is there now, and takes the place of gy and its mask
      in.gy = masked_gradient;
      in.y = nullptr;
      f.act.on = false;
      masked_gradient = nullptr;
    }
  }
  if (!gx.defined() && !masked_gradient) return;
  in.sum = ptr<T>(a.sum);
  if (!coupled && !more.factor && (in.y || !f.act.on)) in.x = nullptr;
  const ChannelGrid g = map_grid(gy, pack);
  with_pack<T>(pack, [&](auto v) {
    with_reads<v()>(in, [&](auto reads) {
      launch_after(summed, grad_apply_kernel<T, v(), reads()>, g, in, more, ptr<T>(gx),
                   masked_gradient, f, g);
    });
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

void batch_norm_grad_cuda(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                          const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                          const Tensor& gresidual) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "batch_norm_grad", T,
                      { grad<T>(gy, a, y, train, gx, gweight, gbias, gresidual); });
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

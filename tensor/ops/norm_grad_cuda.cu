#include "tensor/ops/norm_cuda.cuh"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::kThreads;
using cuda::launch_early;
using cuda::launch_small_early;

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
  cuda::wait_for_previous();
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
        launch_small_early(gy.nbytes(), grad_sums_kernel<T, V, reads()>, g.grid(), g.block(),
                           reduction_bytes<TwoSums>(V), in, masked_gradient,
                           static_cast<TwoSums*>(partial.raw()), block_counters(), f, g, finish);
      });
    });
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
      launch_early(grad_apply_kernel<T, v(), reads()>, g.grid(), g.block(), 0, in, more, ptr<T>(gx),
                   masked_gradient, f, g);
    });
  });
}

}  // namespace

void batch_norm_grad_cuda(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                          const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                          const Tensor& gresidual) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "batch_norm_grad", T,
                      { grad<T>(gy, a, y, train, gx, gweight, gbias, gresidual); });
}

}  // namespace mtcki

#include "tensor/kernels/image_walk.cuh"
#include "tensor/ops/pool_kernels.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::launch;

template <class T, int V>
__global__ void max_pool_kernel(int64_t packs, const T* __restrict__ x, T* __restrict__ y,
                                int32_t* __restrict__ index, ImageView in, ImageView out,
                                PoolAxis rows, PoolAxis cols) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(out, i);
    const PoolWindow row = rows.window(p.h), col = cols.window(p.w);
    const int64_t base = in.base(p.n, p.c), step = in.step();
    Values<T, V> best = load_values<V>(x, base + (row.begin * in.width + col.begin) * step);
    Values<int32_t, V> at;
    for (int v = 0; v < V; ++v) at.v[v] = static_cast<int32_t>(row.begin * in.width + col.begin);
    for (int64_t r = row.begin; r < row.end; ++r)
      for (int64_t c = col.begin; c < col.end; ++c) {
        const auto value = load_values<V>(x, base + (r * in.width + c) * step);
        for (int v = 0; v < V; ++v) {
          const C a = C(value.v[v]);
          if (a > C(best.v[v]) || a != a) {
            best.v[v] = value.v[v];
            at.v[v] = static_cast<int32_t>(r * in.width + c);
          }
        }
      }
    store_values(y, i * V, best);
    store_values(index, i * V, at);
  }
}

// Every input pixel adds up the windows that chose it.
template <class T, int V>
__global__ void max_pool_grad_kernel(int64_t packs, const T* __restrict__ gy,
                                     const int32_t* __restrict__ index, T* __restrict__ gx,
                                     ImageView in, ImageView out, PoolAxis rows, PoolAxis cols) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(in, i);
    const int32_t here = static_cast<int32_t>(p.h * in.width + p.w);
    const int64_t base = out.base(p.n, p.c), step = out.step();
    const PoolRange h = rows.outputs_of(p.h), w = cols.outputs_of(p.w);
    C sum[V] = {};
    for (int64_t r = h.begin; r < h.end; ++r)
      for (int64_t c = w.begin; c < w.end; ++c) {
        const int64_t at = base + (r * out.width + c) * step;
        const auto g = load_values<V>(gy, at);
        const auto chosen = load_values<V>(index, at);
        for (int v = 0; v < V; ++v)
          if (chosen.v[v] == here) sum[v] += C(g.v[v]);
      }
    Values<T, V> result;
    for (int v = 0; v < V; ++v) result.v[v] = T(sum[v]);
    store_values(gx, i * V, result);
  }
}

template <class T, int V>
__global__ void window_mean_kernel(int64_t packs, const T* __restrict__ x, T* __restrict__ y,
                                   ImageView in, ImageView out, PoolAxis rows, PoolAxis cols,
                                   bool count_padding) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(out, i);
    const PoolWindow row = rows.window(p.h), col = cols.window(p.w);
    const C weight = window_weight<C>(row, col, count_padding);
    const int64_t base = in.base(p.n, p.c), step = in.step();
    C sum[V] = {};
    for (int64_t r = row.begin; r < row.end; ++r)
      for (int64_t c = col.begin; c < col.end; ++c) {
        const auto value = load_values<V>(x, base + (r * in.width + c) * step);
        for (int v = 0; v < V; ++v) sum[v] += C(value.v[v]);
      }
    Values<T, V> result;
    for (int v = 0; v < V; ++v) result.v[v] = T(sum[v] * weight);
    store_values(y, i * V, result);
  }
}

template <class T, int V>
__global__ void window_mean_grad_kernel(int64_t packs, const T* __restrict__ gy, T* __restrict__ gx,
                                        ImageView in, ImageView out, PoolAxis rows, PoolAxis cols,
                                        bool count_padding) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(in, i);
    const int64_t base = out.base(p.n, p.c), step = out.step();
    const PoolRange h = rows.outputs_of(p.h), w = cols.outputs_of(p.w);
    C sum[V] = {};
    for (int64_t r = h.begin; r < h.end; ++r)
      for (int64_t c = w.begin; c < w.end; ++c) {
        const C weight = window_weight<C>(rows.window(r), cols.window(c), count_padding);
        const auto g = load_values<V>(gy, base + (r * out.width + c) * step);
        for (int v = 0; v < V; ++v) sum[v] += weight * C(g.v[v]);
      }
    Values<T, V> result;
    for (int v = 0; v < V; ++v) result.v[v] = T(sum[v]);
    store_values(gx, i * V, result);
  }
}

struct OneSum {
  double value = 0;
  MTCKI_HD void merge(const OneSum& o) { value += o.value; }
};

// A block per image and tile of channels: x over channel packs, y over pixels.
template <class T, int V>
__global__ void global_avg_pool_kernel(const T* __restrict__ x, T* __restrict__ y, ImageView in,
                                       int64_t tiles) {
  using C = compute_t<T>;
  MTCKI_DYNAMIC_SHARED(OneSum, shared);
  const int64_t n = blockIdx.x / tiles, pixels = in.height * in.width;
  const int64_t c = (blockIdx.x % tiles * blockDim.x + threadIdx.x) * V;
  OneSum own[V];
  if (c < in.channels) {
    const int64_t base = in.base(n, c), step = in.step(), chunk = int64_t{256} * blockDim.y;
    for (int64_t begin = 0; begin < pixels; begin += chunk) {  // so many are added in f32
      const int64_t end = begin + chunk < pixels ? begin + chunk : pixels;
      C sum[V] = {};
      for (int64_t i = begin + threadIdx.y; i < end; i += blockDim.y) {
        const auto value = load_values<V>(x, base + i * step);
        for (int v = 0; v < V; ++v) sum[v] += C(value.v[v]);
      }
      for (int v = 0; v < V; ++v) own[v].value += static_cast<double>(sum[v]);
    }
  }
  merge_block<V>(own, shared);
  if (threadIdx.y == 0 && c < in.channels)
    for (int v = 0; v < V; ++v)
      y[n * in.channels + c + v] =
          T(static_cast<C>(own[v].value * (1.0 / static_cast<double>(pixels))));
}

template <class T, int V>
__global__ void global_avg_pool_grad_kernel(int64_t packs, const T* __restrict__ gy,
                                            T* __restrict__ gx, ImageView in) {
  using C = compute_t<T>;
  const C scale = static_cast<C>(1.0 / static_cast<double>(in.height * in.width));
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(in, i);
    Values<T, V> g = load_values<V>(gy, p.n * in.channels + p.c);
    for (int v = 0; v < V; ++v) g.v[v] = T(C(g.v[v]) * scale);
    store_values(gx, i * V, g);
  }
}

template <class T, int V>
__global__ void upsample_nearest_kernel(int64_t packs, const T* __restrict__ x, T* __restrict__ y,
                                        ImageView in, ImageView out) {
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(out, i);
    const int64_t h = divide(p.h * in.height, out.height).quotient;
    const int64_t w = divide(p.w * in.width, out.width).quotient;
    store_values(y, i * V, load_values<V>(x, in.base(p.n, p.c) + (h * in.width + w) * in.step()));
  }
}

// The outputs that copy input s: ceil(s*to/from) <= i < ceil((s+1)*to/from).
MTCKI_HD inline int64_t first_copy(int64_t s, int64_t from, int64_t to) {
  return divide(s * to + from - 1, from).quotient;
}
template <class T, int V>
__global__ void upsample_nearest_grad_kernel(int64_t packs, const T* __restrict__ gy,
                                             T* __restrict__ gx, ImageView in, ImageView out) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(in, i);
    const int64_t h0 = first_copy(p.h, in.height, out.height);
    const int64_t h1 = first_copy(p.h + 1, in.height, out.height);
    const int64_t w0 = first_copy(p.w, in.width, out.width);
    const int64_t w1 = first_copy(p.w + 1, in.width, out.width);
    const int64_t base = out.base(p.n, p.c), step = out.step();
    C sum[V] = {};
    for (int64_t h = h0; h < h1; ++h) {
      C row[V] = {};
      for (int64_t w = w0; w < w1; ++w) {
        const auto g = load_values<V>(gy, base + (h * out.width + w) * step);
        for (int v = 0; v < V; ++v) row[v] += C(g.v[v]);
      }
      for (int v = 0; v < V; ++v) sum[v] += row[v];
    }
    Values<T, V> result;
    for (int v = 0; v < V; ++v) result.v[v] = T(sum[v]);
    store_values(gx, i * V, result);
  }
}

// The same where sides double: the four copies of an input are read at once.
template <class T, int V>
__global__ void upsample_twice_grad_kernel(int64_t packs, const T* __restrict__ gy,
                                           T* __restrict__ gx, ImageView in, ImageView out) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, packs) {
    const Place p = place_of<V>(in, i);
    const int64_t step = out.step(), line = out.width * step;
    const T* from = gy + out.base(p.n, p.c) + 2 * p.h * line + 2 * p.w * step;
    const auto a = load_values<V>(from, 0), b = load_values<V>(from, step);
    const auto c = load_values<V>(from, line), d = load_values<V>(from, line + step);
    Values<T, V> result;
    for (int v = 0; v < V; ++v) result.v[v] = T((C(a.v[v]) + C(b.v[v])) + (C(c.v[v]) + C(d.v[v])));
    store_values(gx, i * V, result);
  }
}

}  // namespace

void max_pool_cuda(const Tensor& x, const Tensor& y, const Tensor& index, const PoolAxis& rows,
                   const PoolAxis& cols) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "max_pool2d", T, {
    MTCKI_FOR_PACKS(max_pool_kernel, y, index, x.data<T>(), y.data<T>(), index.data<int32_t>(),
                    image_view(x), image_view(y), rows, cols);
  });
}

void max_pool_grad_cuda(const Tensor& gy, const Tensor& index, const Tensor& gx,
                        const PoolAxis& rows, const PoolAxis& cols) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "max_pool2d_grad", T, {
    MTCKI_FOR_PACKS(max_pool_grad_kernel, gx, gy, gy.data<T>(), index.data<int32_t>(), gx.data<T>(),
                    image_view(gx), image_view(gy), rows, cols);
  });
}

void window_mean_cuda(const Tensor& x, const Tensor& y, const PoolAxis& rows, const PoolAxis& cols,
                      bool count_padding) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "avg_pool2d", T, {
    MTCKI_FOR_PACKS(window_mean_kernel, y, x, x.data<T>(), y.data<T>(), image_view(x),
                    image_view(y), rows, cols, count_padding);
  });
}

void window_mean_grad_cuda(const Tensor& gy, const Tensor& gx, const PoolAxis& rows,
                           const PoolAxis& cols, bool count_padding) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "avg_pool2d_grad", T, {
    MTCKI_FOR_PACKS(window_mean_grad_kernel, gx, gy, gy.data<T>(), gx.data<T>(), image_view(gx),
                    image_view(gy), rows, cols, count_padding);
  });
}

void global_avg_pool_cuda(const Tensor& x, const Tensor& y) {
  if (y.numel() == 0) return;
  const ImageView in = image_view(x);
  MTCKI_DISPATCH_CUDA(x.dtype(), "global_avg_pool", T, {
    with_pack<T>(image_pack<T>(x, x), [&](auto v) {
      constexpr int V = v();
      const int64_t columns = in.last ? in.channels / V : 1;
      const int64_t wide = std::min<int64_t>(columns, 32), deep = in.last ? 256 / wide : 64;
      const int64_t tiles = in.last ? (columns + wide - 1) / wide : in.channels;
      launch(global_avg_pool_kernel<T, V>, dim3(static_cast<unsigned>(in.images * tiles)),
             dim3(static_cast<unsigned>(wide), static_cast<unsigned>(deep)),
             static_cast<size_t>(V * wide * deep) * sizeof(OneSum), x.data<T>(), y.data<T>(), in,
             tiles);
    });
  });
}

void global_avg_pool_grad_cuda(const Tensor& gy, const Tensor& gx) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "global_avg_pool_grad", T, {
    MTCKI_FOR_PACKS(global_avg_pool_grad_kernel, gx, gy, gy.data<T>(), gx.data<T>(),
                    image_view(gx));
  });
}

void upsample_nearest_cuda(const Tensor& x, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "upsample_nearest2d", T, {
    MTCKI_FOR_PACKS(upsample_nearest_kernel, y, x, x.data<T>(), y.data<T>(), image_view(x),
                    image_view(y));
  });
}

void upsample_nearest_grad_cuda(const Tensor& gy, const Tensor& gx) {
  const bool twice = gy.size(2) == 2 * gx.size(2) && gy.size(3) == 2 * gx.size(3);
  MTCKI_DISPATCH_CUDA(gy.dtype(), "upsample_nearest2d_grad", T, {
    if (twice)
      MTCKI_FOR_PACKS(upsample_twice_grad_kernel, gx, gy, gy.data<T>(), gx.data<T>(),
                      image_view(gx), image_view(gy));
    else
      MTCKI_FOR_PACKS(upsample_nearest_grad_kernel, gx, gy, gy.data<T>(), gx.data<T>(),
                      image_view(gx), image_view(gy));
  });
}

}  // namespace mtcki

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/kernels/channel_walk.h"
#include "tensor/ops/pool_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// Every layout is `planes` times H x W pixels of `block` channels each:
//   plain (N*C, 1), channels_last (N, C), blocked (N*C/B, B).
struct PlaneView {
  int64_t planes, height, width, block;
  int64_t size() const { return height * width * block; }
};

PlaneView plane_view(const Tensor& x) {
  const int64_t block = x.layout() == Layout::plain           ? 1
                        : x.layout() == Layout::channels_last ? x.size(1)
                                                              : kChannelBlock;
  return {block ? x.size(0) * x.size(1) / block : 0, x.size(2), x.size(3), block};
}

// f(block) with the two frequent block sizes as compile-time constants.
template <class F>
void with_block(int64_t block, const F& f) {
  if (block == kChannelBlock) {
    f(std::integral_constant<int64_t, kChannelBlock>());
  } else if (block == 1) {
    f(std::integral_constant<int64_t, 1>());
  } else {
    f(block);
  }
}

template <class F>
void for_planes(int64_t planes, int64_t plane_size, const F& f) {
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, plane_size));
  parallel_for(planes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) f(p);
  });
}

// The pixels of one pooling window, in an image of `width` pixels a row.
struct Taps {
  int64_t h0, h1, w0, w1, width;
};

// Maximum and its position over one window, for a vector of channels (V) or one channel (T). x is
// the first pixel of the plane, `block` the distance of two pixels.
template <class V, class T>
[[gnu::always_inline]] inline void max_of_window(const T* x, int64_t block, const Taps& t, T* y,
                                                 int32_t* index) {
  const int32_t first = static_cast<int32_t>(t.h0 * t.width + t.w0);
  V best = load_as<V>(x + first * block);
  if constexpr (std::is_same_v<V, T>) {
    int32_t at = first;
    for (int64_t r = t.h0; r < t.h1; ++r)
      for (int64_t c = t.w0; c < t.w1; ++c) {
        const T value = x[(r * t.width + c) * block];
        const bool take = value > best || value != value;
        best = take ? value : best;
        at = take ? static_cast<int32_t>(r * t.width + c) : at;
      }
    *index = at;
  } else {
    using Mask = decltype(best > best);  // integers as wide as T
    Mask at = Mask{} + first;
    for (int64_t r = t.h0; r < t.h1; ++r)
      for (int64_t c = t.w0; c < t.w1; ++c) {
        const V value = load_as<V>(x + (r * t.width + c) * block);
        const Mask take = (value > best) | (value != value);
        best = take ? value : best;
        at = take ? Mask{} + static_cast<int32_t>(r * t.width + c) : at;
      }
    store(index, __builtin_convertvector(at, typename SimdIndex<T>::Vector));
  }
  store(y, best);
}

template <class V, class T>
[[gnu::always_inline]] inline void mean_of_window(const T* x, int64_t block, const Taps& t,
                                                  T weight, T* y) {
  V sum{};
  for (int64_t r = t.h0; r < t.h1; ++r)
    for (int64_t c = t.w0; c < t.w1; ++c) sum += load_as<V>(x + (r * t.width + c) * block);
  store(y, sum * weight);
}

// f(V{}, b) or f(T{}, b) over the channels of one pixel.
template <class T, class F>
[[gnu::always_inline]] inline void for_lanes(int64_t block, const F& f) {
  int64_t b = 0;
  for (; b + Simd<T>::width <= block; b += Simd<T>::width) f(typename Simd<T>::Vector{}, b);
  for (; b < block; ++b) f(T{}, b);
}

template <class T>
void max_pool(const T* x, T* y, int32_t* index, const PlaneView& in, const PlaneView& out,
              const PoolAxis& rows, const PoolAxis& cols) {
  with_block(in.block, [&](auto block) {
    for_planes(in.planes, in.size(), [&](int64_t plane) {
      const T* xp = x + plane * in.size();
      T* yp = y + plane * out.size();
      int32_t* ip = index + plane * out.size();
      for (int64_t i = 0; i < out.height; ++i) {
        const PoolWindow row = rows.window(i);
        for (int64_t j = 0; j < out.width; ++j, yp += block, ip += block) {
          const PoolWindow col = cols.window(j);
          const Taps taps{row.begin, row.end, col.begin, col.end, in.width};
          for_lanes<T>(block, [&](auto z, int64_t b) {
            max_of_window<decltype(z)>(xp + b, block, taps, yp + b, ip + b);
          });
        }
      }
    });
  });
}

template <class T>
void max_pool_grad(const T* gy, const int32_t* index, T* gx, const PlaneView& out,
                   const PlaneView& in) {
  for_planes(in.planes, in.size(), [&](int64_t plane) {
    T* g = gx + plane * in.size();
    std::memset(g, 0, static_cast<size_t>(in.size()) * sizeof(T));
    const T* y = gy + plane * out.size();
    const int32_t* ip = index + plane * out.size();
    for (int64_t i = 0; i < out.height * out.width; ++i)
      for (int64_t b = 0; b < in.block; ++b) {
        const int64_t k = i * in.block + b;
        g[ip[k] * in.block + b] += y[k];
      }
  });
}

std::vector<PoolWindow> windows(const PoolAxis& axis) {
  std::vector<PoolWindow> all;
  for (int64_t i = 0; i < axis.out; ++i) all.push_back(axis.window(i));
  return all;
}

template <class T>
void window_mean(const T* x, T* y, const PlaneView& in, const PlaneView& out,
                 const std::vector<PoolWindow>& rows, const std::vector<PoolWindow>& cols,
                 bool count_padding) {
  with_block(in.block, [&](auto block) {
    for_planes(in.planes, in.size(), [&](int64_t plane) {
      const T* xp = x + plane * in.size();
      T* yp = y + plane * out.size();
      for (const PoolWindow& row : rows) {
        for (const PoolWindow& col : cols) {
          const Taps taps{row.begin, row.end, col.begin, col.end, in.width};
          const T weight = window_weight<T>(row, col, count_padding);
          for_lanes<T>(block, [&](auto z, int64_t b) {
            mean_of_window<decltype(z)>(xp + b, block, taps, weight, yp + b);
          });
          yp += block;
        }
      }
    });
  });
}

template <class T>
void window_mean_grad(const T* gy, T* gx, const PlaneView& out, const PlaneView& in,
                      const std::vector<PoolWindow>& rows, const std::vector<PoolWindow>& cols,
                      bool count_padding) {
  with_block(in.block, [&](auto block) {
    for_planes(in.planes, in.size(), [&](int64_t plane) {
      const T* yp = gy + plane * out.size();
      T* xp = gx + plane * in.size();
      std::memset(xp, 0, static_cast<size_t>(in.size()) * sizeof(T));
      for (const PoolWindow& row : rows) {
        for (const PoolWindow& col : cols) {
          const T weight = window_weight<T>(row, col, count_padding);
          for (int64_t r = row.begin; r < row.end; ++r) {
            for (int64_t c = col.begin; c < col.end; ++c) {
              T* px = xp + (r * in.width + c) * block;
#pragma omp simd
              for (int64_t b = 0; b < block; ++b) px[b] += weight * yp[b];
            }
          }
          yp += block;
        }
      }
    });
  });
}

template <class T>
void global_avg_pool(const T* x, T* y, const PlaneView& v) {
  const int64_t pixels = v.height * v.width;
  const double scale = 1.0 / static_cast<double>(pixels);
  constexpr int64_t kChunk = 256;  // pixels summed in T before they go on in f64
  for_planes(v.planes, v.size(), [&](int64_t plane) {
    const T* p = x + plane * v.size();
    T* out = y + plane * v.block;  // planes are in the order of [N,C] in every layout
    if (v.block == 1) {
      double total = 0;
      for (int64_t i0 = 0; i0 < pixels; i0 += kChunk) {
        const int64_t i1 = std::min(pixels, i0 + kChunk);
        T chunk = 0;
#pragma omp simd reduction(+ : chunk)
        for (int64_t i = i0; i < i1; ++i) chunk += p[i];
        total += static_cast<double>(chunk);
      }
      *out = static_cast<T>(total * scale);
      return;
    }
    using Vec = typename Simd<T>::Vector;
    constexpr int64_t W = Simd<T>::width;
    int64_t b = 0;
    for (; b + W <= v.block; b += W) {
      double total[W] = {};
      for (int64_t i0 = 0; i0 < pixels; i0 += kChunk) {
        const int64_t i1 = std::min(pixels, i0 + kChunk);
        Vec even{}, odd{};
        int64_t i = i0;
        for (; i + 2 <= i1; i += 2) {
          even += load_as<Vec>(p + i * v.block + b);
          odd += load_as<Vec>(p + (i + 1) * v.block + b);
        }
        if (i < i1) even += load_as<Vec>(p + i * v.block + b);
        even += odd;
        for (int64_t w = 0; w < W; ++w) total[w] += static_cast<double>(even[w]);
      }
      for (int64_t w = 0; w < W; ++w) out[b + w] = static_cast<T>(total[w] * scale);
    }
    for (; b < v.block; ++b) {
      double total = 0;
      for (int64_t i = 0; i < pixels; ++i) total += static_cast<double>(p[i * v.block + b]);
      out[b] = static_cast<T>(total * scale);
    }
  });
}

template <class T>
void global_avg_pool_grad(const T* gy, T* gx, const PlaneView& v) {
  const int64_t pixels = v.height * v.width;
  const T scale = static_cast<T>(1.0 / static_cast<double>(pixels));
  with_block(v.block, [&](auto block) {
    for_planes(v.planes, v.size(), [&](int64_t plane) {
      const T* g = gy + plane * block;
      T* out = gx + plane * v.size();
      for (int64_t i = 0; i < pixels; ++i, out += block) {
#pragma omp simd
        for (int64_t b = 0; b < block; ++b) out[b] = g[b] * scale;
      }
    });
  });
}

template <class T>
void upsample_nearest(const T* x, T* y, const PlaneView& in, const PlaneView& out) {
  std::vector<int64_t> from(static_cast<size_t>(out.width));
  for (int64_t j = 0; j < out.width; ++j)
    from[static_cast<size_t>(j)] = j * in.width / out.width * in.block;
  const bool doubled = out.width == 2 * in.width;
  with_block(in.block, [&](auto block) {
    for_planes(out.planes, out.size(), [&](int64_t plane) {
      const T* xp = x + plane * in.size();
      T* yp = y + plane * out.size();
      const int64_t row = out.width * block;
      int64_t last = -1;
      for (int64_t i = 0; i < out.height; ++i, yp += row) {
        const int64_t source = i * in.height / out.height;
        if (source == last) {
          std::memcpy(yp, yp - row, static_cast<size_t>(row) * sizeof(T));
          continue;
        }
        last = source;
        const T* xr = xp + source * in.width * block;
        if (doubled) {
          for (int64_t j = 0; j < in.width; ++j) {
#pragma omp simd
            for (int64_t b = 0; b < block; ++b) {
              const T value = xr[j * block + b];
              yp[2 * j * block + b] = value;
              yp[(2 * j + 1) * block + b] = value;
            }
          }
        } else {
          for (int64_t j = 0; j < out.width; ++j) {
            const T* px = xr + from[static_cast<size_t>(j)];
#pragma omp simd
            for (int64_t b = 0; b < block; ++b) yp[j * block + b] = px[b];
          }
        }
      }
    });
  });
}

template <class T>
void upsample_nearest_grad(const T* gy, T* gx, const PlaneView& out, const PlaneView& in) {
  // The outputs that copy input s: ceil(s*out/in) <= i < ceil((s+1)*out/in).
  const auto begin_of = [](int64_t s, int64_t from, int64_t to) {
    return (s * to + from - 1) / from;
  };
  const bool doubled = out.width == 2 * in.width && out.height == 2 * in.height;
  with_block(in.block, [&](auto block) {
    for_planes(in.planes, out.size(), [&](int64_t plane) {
      const T* yp = gy + plane * out.size();
      T* xp = gx + plane * in.size();
      const int64_t row = out.width * block;
      for (int64_t i = 0; i < in.height; ++i) {
        const int64_t i0 = begin_of(i, in.height, out.height);
        const int64_t i1 = begin_of(i + 1, in.height, out.height);
        for (int64_t j = 0; j < in.width; ++j, xp += block) {
          if (doubled) {
            const T* a = yp + 2 * i * row + 2 * j * block;
            const T* b2 = a + row;
#pragma omp simd
            for (int64_t b = 0; b < block; ++b)
              xp[b] = (a[b] + a[block + b]) + (b2[b] + b2[block + b]);
            continue;
          }
          const int64_t j0 = begin_of(j, in.width, out.width);
          const int64_t j1 = begin_of(j + 1, in.width, out.width);
#pragma omp simd
          for (int64_t b = 0; b < block; ++b) xp[b] = T(0);
          for (int64_t r = i0; r < i1; ++r) {
            for (int64_t c = j0; c < j1; ++c) {
              const T* p = yp + r * row + c * block;
#pragma omp simd
              for (int64_t b = 0; b < block; ++b) xp[b] += p[b];
            }
          }
        }
      }
    });
  });
}

}  // namespace

void max_pool_cpu(const Tensor& x, const Tensor& y, const Tensor& index, const PoolAxis& rows,
                  const PoolAxis& cols) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "max_pool2d", T, {
    max_pool(x.data<T>(), y.data<T>(), index.data<int32_t>(), plane_view(x), plane_view(y), rows,
             cols);
  });
}

// The index says where each maximum came from: no need to know the windows.
void max_pool_grad_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx, const PoolAxis&,
                       const PoolAxis&) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "max_pool2d_grad", T, {
    max_pool_grad(gy.data<T>(), index.data<int32_t>(), gx.data<T>(), plane_view(gy),
                  plane_view(gx));
  });
}

void window_mean_cpu(const Tensor& x, const Tensor& y, const PoolAxis& rows, const PoolAxis& cols,
                     bool count_padding) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "avg_pool2d", T, {
    window_mean(x.data<T>(), y.data<T>(), plane_view(x), plane_view(y), windows(rows),
                windows(cols), count_padding);
  });
}

void window_mean_grad_cpu(const Tensor& gy, const Tensor& gx, const PoolAxis& rows,
                          const PoolAxis& cols, bool count_padding) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "avg_pool2d_grad", T, {
    window_mean_grad(gy.data<T>(), gx.data<T>(), plane_view(gy), plane_view(gx), windows(rows),
                     windows(cols), count_padding);
  });
}

void global_avg_pool_cpu(const Tensor& x, const Tensor& y) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "global_avg_pool", T,
                       { global_avg_pool(x.data<T>(), y.data<T>(), plane_view(x)); });
}

void global_avg_pool_grad_cpu(const Tensor& gy, const Tensor& gx) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "global_avg_pool_grad", T,
                       { global_avg_pool_grad(gy.data<T>(), gx.data<T>(), plane_view(gx)); });
}

void upsample_nearest_cpu(const Tensor& x, const Tensor& y) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "upsample_nearest2d", T, {
    upsample_nearest(x.data<T>(), y.data<T>(), plane_view(x), plane_view(y));
  });
}

void upsample_nearest_grad_cpu(const Tensor& gy, const Tensor& gx) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "upsample_nearest2d_grad", T, {
    upsample_nearest_grad(gy.data<T>(), gx.data<T>(), plane_view(gy), plane_view(gx));
  });
}

}  // namespace mtcki

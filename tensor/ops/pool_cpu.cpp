#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/ops/channel_walk.h"
#include "tensor/ops/pool_kernels.h"

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

template <class T>
void max_pool(const T* x, T* y, int32_t* index, const PlaneView& in, const PlaneView& out,
              const Pool2dOptions& o) {
  with_block(in.block, [&](auto block) {
    for_planes(in.planes, in.size(), [&](int64_t plane) {
      const T* xp = x + plane * in.size();
      T* yp = y + plane * out.size();
      int32_t* ip = index + plane * out.size();
      for (int64_t i = 0; i < out.height; ++i) {
        const int64_t h = i * o.stride[0] - o.padding[0];
        const int64_t h0 = std::max<int64_t>(0, h), h1 = std::min(in.height, h + o.kernel[0]);
        for (int64_t j = 0; j < out.width; ++j, yp += block, ip += block) {
          const int64_t w = j * o.stride[1] - o.padding[1];
          const int64_t w0 = std::max<int64_t>(0, w), w1 = std::min(in.width, w + o.kernel[1]);
          const int32_t first = static_cast<int32_t>(h0 * in.width + w0);
#pragma omp simd
          for (int64_t b = 0; b < block; ++b) {
            yp[b] = xp[first * block + b];
            ip[b] = first;
          }
          for (int64_t r = h0; r < h1; ++r) {
            for (int64_t c = w0; c < w1; ++c) {
              const int32_t at = static_cast<int32_t>(r * in.width + c);
              const T* px = xp + at * block;
#pragma omp simd
              for (int64_t b = 0; b < block; ++b) {
                const T value = px[b], best = yp[b];
                const bool take = value > best || value != value;
                yp[b] = take ? value : best;
                ip[b] = take ? at : ip[b];
              }
            }
          }
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

template <class T>
T window_weight(const PoolWindow& row, const PoolWindow& col, bool count_padding) {
  const int64_t n =
      count_padding ? row.padded * col.padded : (row.end - row.begin) * (col.end - col.begin);
  return T(1) / static_cast<T>(n);
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
#pragma omp simd
          for (int64_t b = 0; b < block; ++b) yp[b] = T(0);
          for (int64_t r = row.begin; r < row.end; ++r) {
            for (int64_t c = col.begin; c < col.end; ++c) {
              const T* px = xp + (r * in.width + c) * block;
#pragma omp simd
              for (int64_t b = 0; b < block; ++b) yp[b] += px[b];
            }
          }
          const T weight = window_weight<T>(row, col, count_padding);
#pragma omp simd
          for (int64_t b = 0; b < block; ++b) yp[b] *= weight;
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
    using Vec = typename Simd<T>::Vec;
    constexpr int64_t W = Simd<T>::width;
    int64_t b = 0;
    for (; b + W <= v.block; b += W) {
      double total[W] = {};
      for (int64_t i0 = 0; i0 < pixels; i0 += kChunk) {
        const int64_t i1 = std::min(pixels, i0 + kChunk);
        Vec even{}, odd{};
        int64_t i = i0;
        for (; i + 2 <= i1; i += 2) {
          even += load<Vec>(p + i * v.block + b);
          odd += load<Vec>(p + (i + 1) * v.block + b);
        }
        if (i < i1) even += load<Vec>(p + i * v.block + b);
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

void max_pool_cpu(const Tensor& x, const Tensor& y, const Tensor& index, const Pool2dOptions& o) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "max_pool2d", T, {
    max_pool(x.data<T>(), y.data<T>(), index.data<int32_t>(), plane_view(x), plane_view(y), o);
  });
}

void max_pool_grad_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "max_pool2d_grad", T, {
    max_pool_grad(gy.data<T>(), index.data<int32_t>(), gx.data<T>(), plane_view(gy),
                  plane_view(gx));
  });
}

void window_mean_cpu(const Tensor& x, const Tensor& y, const std::vector<PoolWindow>& rows,
                     const std::vector<PoolWindow>& cols, bool count_padding) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "avg_pool2d", T, {
    window_mean(x.data<T>(), y.data<T>(), plane_view(x), plane_view(y), rows, cols, count_padding);
  });
}

void window_mean_grad_cpu(const Tensor& gy, const Tensor& gx, const std::vector<PoolWindow>& rows,
                          const std::vector<PoolWindow>& cols, bool count_padding) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "avg_pool2d_grad", T, {
    window_mean_grad(gy.data<T>(), gx.data<T>(), plane_view(gy), plane_view(gx), rows, cols,
                     count_padding);
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

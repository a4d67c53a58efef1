// Per-channel CPU kernels over every layout, written once. A body works on one SIMD vector of
// elements at a time, given the per-channel parameters of these elements as vectors too:
//
//   plain          vectors along H,W of one channel; its parameters are broadcast
//   blocked        vectors along the channel block; parameters are loaded once per block
//   channels_last  vectors along the channels; parameters are loaded with them
//
// Bodies are generic lambdas: the ends of rows call them with T in place of the vector.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/kernels/bf16_vector.h"
#include "tensor/layout.h"
#include "tensor/parallel.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than a register never cross a call
#endif

namespace mtcki {

template <class T>
struct Simd {
  static constexpr int64_t bytes = 4 * kChannelBlock;
  static constexpr int64_t width = bytes / static_cast<int64_t>(sizeof(T));
  using Vec __attribute__((vector_size(4 * kChannelBlock))) = T;
};

// i32 indices beside a vector of T: as many lanes. (GCC 12 takes no dependent vector_size.)
template <class T>
struct SimdIndex;
template <>
struct SimdIndex<float> {
  using Vec __attribute__((vector_size(4 * kChannelBlock))) = int32_t;
};
template <>
struct SimdIndex<double> {
  using Vec __attribute__((vector_size(2 * kChannelBlock))) = int32_t;
};

// What a kernel computes in when its tensors hold S: bf16 is converted in registers.
template <class S>
using Computed = std::conditional_t<std::is_same_v<S, bfloat16>, float, S>;
struct Bf16Vector {  // as many lanes as a vector of floats
  using Half __attribute__((vector_size(2 * kChannelBlock))) = uint16_t;
  using Full __attribute__((vector_size(4 * kChannelBlock))) = uint32_t;
};

// Loads and stores V (a vector or a scalar) without alignment.
template <class V, class T>
[[gnu::always_inline]] inline V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <class V>
[[gnu::always_inline]] inline V load(const bfloat16* p) {
  if constexpr (std::is_same_v<V, float>) {
    return *p;
  } else {
    Bf16Vector::Half half;
    std::memcpy(&half, p, sizeof half);
    return widened_bf16<V, Bf16Vector::Full>(half);
  }
}
template <class V, class T>
[[gnu::always_inline]] inline void store(T* p, const V& v) {
  std::memcpy(p, &v, sizeof(V));
}
template <class V>
[[gnu::always_inline]] inline void store(bfloat16* p, const V& v) {
  if constexpr (std::is_same_v<V, float>) {
    *p = bfloat16(v);
  } else {
    const auto half = rounded_bf16<Bf16Vector::Half, Bf16Vector::Full>(v);
    std::memcpy(static_cast<void*>(p), &half, sizeof half);
  }
}
template <class V, class T>
[[gnu::always_inline]] inline V splat(T value) {
  return V{} + value;
}

// P arrays of one value per channel.
template <class T, int P>
struct ChannelParams {
  std::array<const T*, P> values;

  template <class V>
  [[gnu::always_inline]] std::array<V, P> of(int64_t channel) const {  // consecutive channels
    std::array<V, P> out;
    for (int i = 0; i < P; ++i) out[i] = load<V>(values[i] + channel);
    return out;
  }
  template <class V>
  [[gnu::always_inline]] std::array<V, P> same(int64_t channel) const {  // one channel, broadcast
    std::array<V, P> out;
    for (int i = 0; i < P; ++i) out[i] = splat<V>(values[i][channel]);
    return out;
  }
};

// body(V{}, offset, params): V is the vector type or T. Every element is visited once, in parallel.
template <class T, int P, class Body>
void for_channels(const ChannelView& v, const ChannelParams<T, P>& params, const Body& body) {
  using Vec = typename Simd<T>::Vec;
  constexpr int64_t W = Simd<T>::width;
  const int64_t segment = v.inner * v.block;
  if (v.outer * v.blocks * segment == 0) return;
  if (v.blocks == 1 && v.inner == 1) {  // rows of all channels: parameters stay for a few rows
    const int64_t rows = std::clamp<int64_t>((1 << 12) / v.block, 1, 64);
    const int64_t groups = (v.outer + rows - 1) / rows;
    parallel_for(groups, std::max<int64_t>(1, (1 << 14) / (rows * v.block)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t g = begin; g < end; ++g) {
                     const int64_t first = g * rows, last = std::min(v.outer, first + rows);
                     int64_t b = 0;
                     for (; b + W <= v.block; b += W) {
                       const auto p = params.template of<Vec>(b);
                       for (int64_t r = first; r < last; ++r) body(Vec{}, r * v.block + b, p);
                     }
                     for (; b < v.block; ++b) {
                       const auto p = params.template of<T>(b);
                       for (int64_t r = first; r < last; ++r) body(T{}, r * v.block + b, p);
                     }
                   }
                 });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / segment);
  parallel_for(v.outer * v.blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t k = t % v.blocks, base = t * segment;
      if (v.block == 1) {
        const auto p = params.template same<Vec>(k);
        int64_t i = 0;
        for (; i + W <= segment; i += W) body(Vec{}, base + i, p);
        if (i < segment) {
          const auto q = params.template same<T>(k);
          for (; i < segment; ++i) body(T{}, base + i, q);
        }
      } else if (v.block == kChannelBlock) {
        for (int64_t b = 0; b < kChannelBlock; b += W) {
          const auto p = params.template of<Vec>(k * kChannelBlock + b);
          for (int64_t i = 0; i < v.inner; ++i) body(Vec{}, base + i * kChannelBlock + b, p);
        }
      } else {
        for (int64_t i = 0; i < v.inner; ++i) {
          int64_t b = 0;
          for (; b + W <= v.block; b += W)
            body(Vec{}, base + i * v.block + b, params.template of<Vec>(k * v.block + b));
          for (; b < v.block; ++b)
            body(T{}, base + i * v.block + b, params.template of<T>(k * v.block + b));
        }
      }
    }
  });
}

// K sums per channel: body(V{}, offset, params, acc) adds to acc[0..K). Sums run in T over at most
// kChunk elements and are combined in f64, in an order that depends on the shape only. Returns K
// arrays of v.channels() values, one after the other.
template <class T, int P, int K, class Body>
std::vector<double> reduce_channels(const ChannelView& v, const ChannelParams<T, P>& params,
                                    const Body& body) {
  using Vec = typename Simd<T>::Vec;
  constexpr int64_t W = Simd<T>::width, kChunk = 256;
  const int64_t channels = v.channels(), segment = v.inner * v.block;
  std::vector<double> total(static_cast<size_t>(K * channels), 0.0);
  const int64_t tasks = v.outer * v.blocks;
  if (tasks * segment == 0) return total;
  const int64_t parts = std::clamp<int64_t>(tasks * segment >> 14, 1, std::min<int64_t>(tasks, 64));
  std::vector<double> partial(static_cast<size_t>(parts * K * channels), 0.0);

  // Four independent accumulators hide the latency of the additions.
  const auto sum_run = [&](int64_t offset, int64_t count, int64_t step, const std::array<Vec, P>& p)
      __attribute__((always_inline)) {
    std::array<Vec, K> a{}, b{}, c{}, d{};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4, offset += 4 * step) {
      body(Vec{}, offset, p, a);
      body(Vec{}, offset + step, p, b);
      body(Vec{}, offset + 2 * step, p, c);
      body(Vec{}, offset + 3 * step, p, d);
    }
    for (; i < count; ++i, offset += step) body(Vec{}, offset, p, a);
    for (int s = 0; s < K; ++s) a[s] = (a[s] + b[s]) + (c[s] + d[s]);
    return a;
  };

  parallel_for(parts, 1, [&](int64_t part_begin, int64_t part_end) {
    for (int64_t part = part_begin; part < part_end; ++part) {
      double* sums = partial.data() + part * K * channels;
      const int64_t begin = tasks * part / parts, end = tasks * (part + 1) / parts;
      if (v.block == 1) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t k = t % v.blocks, vectors = segment / W;
          const auto p = params.template same<Vec>(k);
          for (int64_t i = 0; i < vectors; i += kChunk) {
            const auto acc = sum_run(t * segment + i * W, std::min(kChunk, vectors - i), W, p);
            for (int s = 0; s < K; ++s)
              for (int64_t w = 0; w < W; ++w) sums[s * channels + k] += acc[s][w];
          }
          std::array<T, K> tail{};
          const auto q = params.template same<T>(k);
          for (int64_t i = vectors * W; i < segment; ++i) body(T{}, t * segment + i, q, tail);
          for (int s = 0; s < K; ++s) sums[s * channels + k] += tail[s];
        }
      } else if (v.block == kChannelBlock && v.inner > 1) {
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t b = 0; b < kChannelBlock; b += W) {
            const int64_t channel = (t % v.blocks) * kChannelBlock + b;
            const auto p = params.template of<Vec>(channel);
            for (int64_t i = 0; i < v.inner; i += kChunk) {
              const auto acc = sum_run(t * segment + i * kChannelBlock + b,
                                       std::min(kChunk, v.inner - i), kChannelBlock, p);
              for (int s = 0; s < K; ++s)
                for (int64_t w = 0; w < W; ++w) sums[s * channels + channel + w] += acc[s][w];
            }
          }
        }
      } else {
        // Rows of all channels (outer x 1 x inner x C), or blocks of a 1x1 plane. Rows of the same
        // block are `blocks` segments apart; a chunk of them stays in the cache.
        for (int64_t t0 = begin; t0 < end; t0 += 64 * v.blocks) {
          const int64_t t1 = std::min(end, t0 + 64 * v.blocks);
          for (int64_t k0 = t0; k0 < std::min(t1, t0 + v.blocks); ++k0) {
            const int64_t k = k0 % v.blocks, count = (t1 - k0 + v.blocks - 1) / v.blocks;
            const int64_t step = v.blocks * segment;
            for (int64_t i = 0; i < v.inner; ++i) {
              const int64_t first = k0 * segment + i * v.block;
              int64_t b = 0;
              for (; b + W <= v.block; b += W) {
                const int64_t channel = k * v.block + b;
                const auto acc = sum_run(first + b, count, step, params.template of<Vec>(channel));
                for (int s = 0; s < K; ++s)
                  for (int64_t w = 0; w < W; ++w) sums[s * channels + channel + w] += acc[s][w];
              }
              for (; b < v.block; ++b) {
                const int64_t channel = k * v.block + b;
                const auto q = params.template of<T>(channel);
                std::array<T, K> acc{};
                for (int64_t r = 0; r < count; ++r) body(T{}, first + b + r * step, q, acc);
                for (int s = 0; s < K; ++s) sums[s * channels + channel] += acc[s];
              }
            }
          }
        }
      }
    }
  });
  for (int64_t part = 0; part < parts; ++part) {
    const double* from = partial.data() + part * K * channels;
    for (int64_t i = 0; i < K * channels; ++i) total[static_cast<size_t>(i)] += from[i];
  }
  return total;
}

}  // namespace mtcki

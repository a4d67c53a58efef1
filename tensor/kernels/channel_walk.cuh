// Per-channel CUDA kernels over plain and channels_last tensors, written once: the counterpart of
// channel_walk.h. A tensor is `rows` values of each of `channels` channels; a thread owns V
// neighbouring channels (sixteen bytes of channels_last, else one) and walks down rows.
//
//   block (x, y)  x: channel packs of a tile, y: rows
//   grid  (x, y)  x: parts of the rows, y: channel tiles
//
// Reductions have two stages and a fixed order: each block merges what its threads found and writes
// one partial result per channel; the last block of a tile to get there merges those.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "tensor/cuda/launch.cuh"
#include "tensor/error.h"
#include "tensor/layout.h"
#include "tensor/kernels/block_counters.h"
#include "tensor/tensor.h"

namespace mtcki {

struct ChannelGrid {
  int64_t rows = 0, channels = 0;
  int64_t inner = 1;  // plain: rows of one channel that lie together, H*W; else 1
  int64_t rows_per_part = 1, parts = 0, tiles = 0;
  int threads_x = 1, threads_y = 1;

  dim3 grid() const {
    return dim3(static_cast<unsigned>(parts),
                static_cast<unsigned>(std::min<int64_t>(tiles, 65535)));
  }
  dim3 block() const {
    return dim3(static_cast<unsigned>(threads_x), static_cast<unsigned>(threads_y));
  }
  MTCKI_HD int64_t rows_of(int64_t part) const {
    const int64_t left = rows - part * rows_per_part;
    return left < rows_per_part ? left : rows_per_part;
  }
  // Of a thread with V channels; several are neighbours in channels_last only.
  template <int V>
  MTCKI_HD int64_t offset(int64_t row, int64_t channel) const {
    if (V > 1 || inner == 1) return row * channels + channel;
    return (row / inner * channels + channel) * inner + row % inner;
  }
};

// V values, moved at once (sixteen bytes at a time).
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Values {
  T v[V];
};

// How many channels a thread takes: 16 bytes where rows of channels are aligned for that.
template <class T>
inline int channel_pack(const Tensor& x, std::initializer_list<Tensor> others) {
  constexpr int64_t kPack = 16 / sizeof(T);
  if (x.is_plain() && x.rank() == 4 && x.size(2) * x.size(3) != 1) return 1;
  if (x.size(1) % kPack != 0) return 1;
  const auto aligned = [](const Tensor& t) {
    return (reinterpret_cast<uintptr_t>(t.raw()) & 15) == 0;
  };
  return aligned(x) && std::all_of(others.begin(), others.end(), aligned) ? kPack : 1;
}

// f(V) for that pack as a compile-time constant.
template <class T, class F>
void with_pack(int pack, const F& f) {
  if (pack == 1) {
    f(std::integral_constant<int, 1>());
  } else {
    f(std::integral_constant<int, static_cast<int>(16 / sizeof(T))>());
  }
}

// Geometry for a kernel of at most about `most_blocks` blocks in which a thread walks at least
// `rows_per_thread` rows, where there are so many. A tile has at most `most_wide` packs.
inline ChannelGrid channel_grid(const Tensor& x, int pack, int64_t rows_per_thread,
                                int64_t most_blocks, int64_t most_wide) {
  const ChannelView v = channel_view(x.shape(), x.layout());
  ChannelGrid g;
  g.channels = v.channels();
  g.rows = v.per_channel();
  g.inner = v.block == 1 ? v.inner : 1;
  if (g.channels == 0 || g.rows == 0) return g;
  const int64_t packs = g.channels / pack;
  g.threads_x = static_cast<int>(g.inner == 1 ? std::min<int64_t>(packs, most_wide) : 1);
  g.threads_y = cuda::kThreads / g.threads_x;
  g.tiles = (packs + g.threads_x - 1) / g.threads_x;
  const int64_t y = g.threads_y, least = y * rows_per_thread;
  const int64_t most = std::max<int64_t>(1, most_blocks / g.tiles);
  const int64_t wanted = std::max(least, (g.rows + most - 1) / most);
  g.rows_per_part = (wanted + y - 1) / y * y;
  g.parts = (g.rows + g.rows_per_part - 1) / g.rows_per_part;
  return g;
}

// A reduction: few enough blocks that the second stage has little to do, never more than 256 rows
// a thread, since that many are added in f32. Narrow tiles (64 bytes, two sectors) share the second
// stage out: one block that adds all parts of 256 channels needs longer than the rest of the
// kernel.
inline ChannelGrid reduction_grid(const Tensor& x, int pack) {
  ChannelGrid g = channel_grid(x, pack, 2, 2 * 132, pack > 1 ? 4 : 32);
  const int64_t longest = 256 * int64_t{g.threads_y};
  if (g.rows_per_part > longest) {
    g.rows_per_part = longest;
    g.parts = (g.rows + longest - 1) / longest;
  }
  if (g.tiles > kBlockCounters)
    throw ShapeError(str("a reduction on CUDA over ", x.shape(), ": too many channels"));
  return g;
}
// A map: what a thread reads per channel is read once for all its rows, so large tensors get no
// more blocks than fill the device once.
inline ChannelGrid map_grid(const Tensor& x, int pack) {
  return channel_grid(x, pack, 2, 4 * 132, 32);
}

// The rows of the calling thread: for (row = first; row < end; row += step).
struct RowRange {
  int64_t first, end, step;
};
__device__ inline RowRange rows_of_thread(const ChannelGrid& g) {
  const int64_t begin = int64_t{blockIdx.x} * g.rows_per_part;
  return {begin + threadIdx.y, begin + g.rows_of(blockIdx.x), blockDim.y};
}
// The same, last first: after a reduction over the same rows its end is still in the L2 cache.
struct BackwardRows {
  int64_t first, count, step;  // rows first, first - step, ...
};
__device__ inline BackwardRows backward_rows_of_thread(const ChannelGrid& g) {
  const RowRange r = rows_of_thread(g);
  const int64_t count = r.first < r.end ? (r.end - r.first + r.step - 1) / r.step : 0;
  return {r.first + (count - 1) * r.step, count, r.step};
}
__device__ inline int64_t first_channel(int64_t tile, int pack) {
  return (tile * blockDim.x + threadIdx.x) * pack;
}

template <int V, class T>
__device__ inline Values<T, V> load_values(const T* x, int64_t at) {
  return *reinterpret_cast<const Values<T, V>*>(x + at);
}
template <int V, class T>
__device__ inline void store_values(T* y, int64_t at, const Values<T, V>& values) {
  *reinterpret_cast<Values<T, V>*>(y + at) = values;
}

// The values of V neighbouring channels, 16 bytes at a time; `missing` where p is null.
template <int V, class C>
__device__ inline void load_channels(const C* __restrict__ p, int64_t channel, C (&out)[V],
                                     C missing = C(0)) {
  constexpr int kAtOnce = V * sizeof(C) >= 16 ? static_cast<int>(16 / sizeof(C)) : 1;
  for (int v = 0; v < V; v += kAtOnce) {
    Values<C, kAtOnce> in;
    if (p) in = load_values<kAtOnce>(p, channel + v);
    for (int i = 0; i < kAtOnce; ++i) out[v + i] = p ? in.v[i] : missing;
  }
}
// Whether load_channels may read there.
inline bool channels_aligned(std::initializer_list<Tensor> per_channel) {
  return std::all_of(per_channel.begin(), per_channel.end(), [](const Tensor& t) {
    return !t.defined() || (reinterpret_cast<uintptr_t>(t.raw()) & 15) == 0;
  });
}

// What reductions merge: sums of two quantities.
struct TwoSums {
  double a = 0, b = 0;
  MTCKI_HD void merge(const TwoSums& o) {
    a += o.a;
    b += o.b;
  }
};

// Of n values, from the sums of their deviations and of the squares of these; relative to the
// origin.
struct MeanVariance {
  double mean, variance;
};
MTCKI_HD inline MeanVariance mean_variance(const TwoSums& s, double n) {
  const double mean = s.a / n, m2 = s.b - mean * s.a;
  return {mean, (m2 < 0 ? 0 : m2) / n};  // a NaN stays
}

// Merges own[] over the rows of the block; the result is in the threads with threadIdx.y == 0 and
// in the first row of shared (V * threads of the block). Every thread of the block calls it.
//
// Every column (channel of the tile) is added by a few threads, each over its share of the rows,
// and their results by one. Two barriers, where a tree over the rows would have one per level.
constexpr int kColumnShares = 16;  // at most
template <int V, class S>
__device__ inline void merge_block(S (&own)[V], S* shared) {
  const int x = threadIdx.x, y = threadIdx.y, width = blockDim.x, height = blockDim.y;
  const int columns = width * V, threads = width * height;
  for (int v = 0; v < V; ++v) shared[y * columns + v * width + x] = own[v];
  __syncthreads();
  const int fit = threads / columns;
  const int shares = fit < 1 ? 1 : fit < kColumnShares ? fit : kColumnShares;
  for (int i = y * width + x; i < shares * columns; i += threads) {
    const int share = i / columns, column = i % columns;
    S sum = shared[i];  // row `share`, which only this thread reads
    for (int row = share + shares; row < height; row += shares)
      sum.merge(shared[row * columns + column]);
    shared[i] = sum;
  }
  __syncthreads();
  if (y == 0) {
    for (int v = 0; v < V; ++v) {
      S sum = shared[v * width + x];
      for (int share = 1; share < shares; ++share)
        sum.merge(shared[share * columns + v * width + x]);
      shared[v * width + x] = own[v] = sum;
    }
  }
  __syncthreads();
}

// What another block of the same kernel wrote: past this multiprocessor's own cache.
__device__ inline TwoSums load_fresh(const TwoSums* p) {
#if defined(__CUDA_ARCH__)
  const double2 v = __ldcg(reinterpret_cast<const double2*>(p));
  return {v.x, v.y};
#else
  return *p;
#endif
}

// How the threads of a block add up the columns (channels of a tile, in the order (v, x) while they
// lie in `own`): each column by `shares` threads, then by one.
struct Columns {
  int width, height, columns, threads, thread, shares;
  __device__ explicit Columns(int pack)
      : width(static_cast<int>(blockDim.x)),
        height(static_cast<int>(blockDim.y)),
        columns(width * pack),
        threads(width * height),
        thread(static_cast<int>(threadIdx.y) * width + static_cast<int>(threadIdx.x)) {
    const int fit = threads / columns;
    shares = fit < 1 ? 1 : fit < kColumnShares ? fit : kColumnShares;
  }
};

// own[] is what this thread found in its rows of the tile's channels. The block's sums go to
// partial[part*channels + c]. shared: reduction_bytes<S>(V).
template <class S>
constexpr size_t reduction_bytes(int pack) {
  return (static_cast<size_t>(pack) * (cuda::kThreads + 32) + cuda::kThreads) * sizeof(S);
}
template <int V, class S>
__device__ inline void write_block_sums(S (&own)[V], S* shared, S* partial, const ChannelGrid& g,
                                        int64_t tile) {
  const Columns b(V);
  const int stride = b.threads + b.width;  // of v: the next pack begins in other banks
  S* results = shared + V * stride;        // of the shares
  for (int v = 0; v < V; ++v) shared[v * stride + b.thread] = own[v];
  __syncthreads();
  // More columns than threads, and one share then, or fewer.
  for (int begin = 0; begin < b.columns; begin += b.threads) {
    const int i = begin + b.thread, column = i % b.columns, share = i / b.columns;
    S sum{};
    if (share < b.shares) {
      const S* of_column = shared + column / b.width * stride + column % b.width;
      MTCKI_UNROLL_BY(8)
      for (int row = share; row < b.height; row += b.shares) sum.merge(of_column[row * b.width]);
      results[b.thread] = sum;
    }
    __syncthreads();
    if (b.thread < b.columns - begin) {
      const int own_column = begin + b.thread;
      sum = results[b.thread];
      for (int other = 1; other < b.shares; ++other)
        sum.merge(results[other * b.columns + b.thread]);
      const int64_t c = tile * b.columns + own_column % b.width * V + own_column / b.width;
      if (c < g.channels) partial[blockIdx.x * g.channels + c] = sum;
    }
    __syncthreads();
  }
}

// Ends a reduction: the block's sums, then the last block of the tile merges the parts and calls
// finish(c, S) for each of its channels. counters: zero, left zero.
template <int V, class S, class Finish>
__device__ inline void finish_reduction(S (&own)[V], S* shared, S* partial, unsigned* counters,
                                        const ChannelGrid& g, int64_t tile, const Finish& finish) {
  __shared__ bool last;
  write_block_sums<V>(own, shared, partial, g, tile);
  const Columns b(V);
  S* results = shared;
  __threadfence();
  __syncthreads();
  if (b.thread == 0) last = atomicAdd(&counters[tile], 1u) == static_cast<unsigned>(g.parts) - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int begin = 0; begin < b.columns; begin += b.threads) {
    const int i = begin + b.thread, share = i / b.columns;
    const int64_t channel = tile * b.columns + i % b.columns;
    S sum{};
    if (share < b.shares && channel < g.channels) {
      MTCKI_UNROLL_BY(8)
      for (int64_t part = share; part < g.parts; part += b.shares)
        sum.merge(load_fresh(partial + part * g.channels + channel));
    }
    results[b.thread] = sum;
    __syncthreads();
    if (b.thread < b.columns - begin) {
      for (int other = 1; other < b.shares; ++other)
        sum.merge(results[other * b.columns + b.thread]);
      if (channel < g.channels) finish(channel, sum);
    }
    __syncthreads();
  }
  if (b.thread == 0) counters[tile] = 0;
}

// Room for the partial results of a reduction.
template <class S>
Tensor partial_results(const Tensor& x, const ChannelGrid& g) {
  return Tensor::empty({std::max<int64_t>(1, g.parts * g.channels) *
                        static_cast<int64_t>(sizeof(S) / sizeof(double))},
                       DType::f64, x.device());
}

}  // namespace mtcki

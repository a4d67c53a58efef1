// Per-channel CUDA kernels over plain and channels_last tensors, written once: the counterpart of
// channel_walk.h. A tensor is `rows` values of each of `channels` channels; a thread owns V
// neighbouring channels (sixteen bytes of channels_last, else one) and walks down rows.
//
//   block (x, y)  x: channel packs of a tile, y: rows
//   grid  (x, y)  x: parts of the rows, y: channel tiles
//
// Reductions have two stages and a fixed order: each block merges what its threads found and writes
// one partial result per channel; merge_parts_kernel merges those.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "tensor/cuda/launch.cuh"
#include "tensor/layout.h"
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
  MTCKI_HD int64_t offset(int64_t row, int64_t channel) const {
    if (inner == 1) return row * channels + channel;
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
// `rows_per_thread` rows, where there are so many.
inline ChannelGrid channel_grid(const Tensor& x, int pack, int64_t rows_per_thread,
                                int64_t most_blocks) {
  const ChannelView v = channel_view(x.shape(), x.layout());
  ChannelGrid g;
  g.channels = v.channels();
  g.rows = v.per_channel();
  g.inner = v.block == 1 ? v.inner : 1;
  if (g.channels == 0 || g.rows == 0) return g;
  const int64_t packs = g.channels / pack;
  g.threads_x = static_cast<int>(g.inner == 1 ? std::min<int64_t>(packs, 32) : 1);
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
// a thread, since that many are added in f32.
inline ChannelGrid reduction_grid(const Tensor& x, int pack) {
  ChannelGrid g = channel_grid(x, pack, 4, 3 * 132);
  const int64_t longest = 256 * int64_t{g.threads_y};
  if (g.rows_per_part > longest) {
    g.rows_per_part = longest;
    g.parts = (g.rows + longest - 1) / longest;
  }
  return g;
}
// A map: as many blocks as there is work for.
inline ChannelGrid map_grid(const Tensor& x, int pack) {
  return channel_grid(x, pack, 8, int64_t{1} << 30);
}

// The rows of the calling thread: for (row = first; row < end; row += step).
struct RowRange {
  int64_t first, end, step;
};
__device__ inline RowRange rows_of_thread(const ChannelGrid& g) {
  const int64_t begin = int64_t{blockIdx.x} * g.rows_per_part;
  return {begin + threadIdx.y, begin + g.rows_of(blockIdx.x), blockDim.y};
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

// What reductions merge. Sums of two quantities:
struct TwoSums {
  double a = 0, b = 0;
  MTCKI_HD void merge(const TwoSums& o) {
    a += o.a;
    b += o.b;
  }
};
// Count, mean and sum of squared deviations (Chan et al. 1983): nothing cancels when means are
// large.
struct Spread {
  double n = 0, mean = 0, m2 = 0;
  MTCKI_HD void merge(const Spread& o) {
    if (o.n == 0) return;
    const double total = n + o.n, d = o.mean - mean;
    mean += d * (o.n / total);
    m2 += o.m2 + d * d * (n * o.n / total);
    n = total;
  }
};

// Merges own[] over the rows of the block; the result is in the threads with threadIdx.y == 0.
// shared: V * threads of the block. Every thread of the block calls it.
template <int V, class S>
__device__ inline void merge_block(S (&own)[V], S* shared) {
  const int x = threadIdx.x, y = threadIdx.y, width = blockDim.x;
  for (int v = 0; v < V; ++v) shared[(y * V + v) * width + x] = own[v];
  for (int left = blockDim.y; left > 1;) {
    const int half = (left + 1) / 2;
    __syncthreads();
    if (y + half < left) {
      for (int v = 0; v < V; ++v) {
        own[v].merge(shared[((y + half) * V + v) * width + x]);
        shared[(y * V + v) * width + x] = own[v];
      }
    }
    left = half;
  }
  __syncthreads();
}

// Second stage: finish(c, S) for every channel, S = the parts' partial[part*channels + c], merged.
constexpr int kMergeChannels = 16, kMergeRows = 32;
template <class S, class Finish>
__global__ void merge_parts_kernel(const S* __restrict__ partial, int64_t parts, int64_t channels,
                                   Finish finish) {
  __shared__ double shared[kMergeChannels * kMergeRows * sizeof(S) / sizeof(double)];
  const int64_t c = int64_t{blockIdx.x} * kMergeChannels + threadIdx.x;
  S own[1];
  own[0] = S{};
  if (c < channels)
    for (int64_t p = threadIdx.y; p < parts; p += kMergeRows)
      own[0].merge(partial[p * channels + c]);
  merge_block<1>(own, reinterpret_cast<S*>(shared));
  if (threadIdx.y == 0 && c < channels) finish(c, own[0]);
}
template <class S, class Finish>
void merge_parts(const Tensor& partial, const ChannelGrid& g, const Finish& finish) {
  const int64_t blocks = (g.channels + kMergeChannels - 1) / kMergeChannels;
  cuda::launch(merge_parts_kernel<S, Finish>, dim3(static_cast<unsigned>(blocks)),
               dim3(kMergeChannels, kMergeRows), 0, static_cast<const S*>(partial.raw()), g.parts,
               g.channels, finish);
}
// Room for the partial results of a reduction.
template <class S>
Tensor partial_results(const Tensor& x, const ChannelGrid& g) {
  return Tensor::empty({std::max<int64_t>(1, g.parts * g.channels) *
                        static_cast<int64_t>(sizeof(S) / sizeof(double))},
                       DType::f64, x.device());
}

}  // namespace mtcki

// Kernels on the rows of a matrix: a warp takes a short row, a block a long one. A body is a
// functor
//   __device__ void operator()(int64_t row, const RowThreads& t) const
// whose threads walk the row with for (j = t.index(); j < n; j += t.count()) and meet in t.all().
#pragma once

#include "tensor/cuda/launch.cuh"

namespace mtcki::cuda {

inline constexpr int64_t kWarpRow = 1024;  // the longest row of one warp

struct Plus {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
// A NaN loses, so that the result does not depend on the side it stands on.
struct Larger {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a > b || b != b ? a : b;
  }
};

template <bool Block>
struct RowThreads {
  static constexpr int kSize = Block ? kThreads : 128;  // of the CUDA block
  __device__ int index() const { return static_cast<int>(Block ? threadIdx.x : threadIdx.x % 32); }
  __device__ static constexpr int count() { return Block ? kThreads : 32; }

  // f, which commutes, over the v of all threads of the row, in a fixed order; each gets the
  // result.
  template <class V, class F>
  __device__ V all(V v, F f) const {
    for (int mask = 16; mask > 0; mask /= 2) v = f(v, __shfl_xor_sync(~0u, v, mask));
    if constexpr (Block) {
      __shared__ V part[kThreads / 32];
      __syncthreads();  // everybody has read the result before
      if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
      __syncthreads();
      v = part[0];
      for (int warp = 1; warp < kThreads / 32; ++warp) v = f(v, part[warp]);
    }
    return v;
  }
  template <class V>
  __device__ V sum(V v) const {
    return all(v, Plus{});
  }
  template <class V>
  __device__ V largest(V v) const {
    return all(v, Larger{});
  }
};

template <bool Block, class Body>
__global__ void rows_kernel(int64_t rows, Body body) {
  const RowThreads<Block> t;
  const int64_t per_block = Block ? 1 : RowThreads<Block>::kSize / 32;
  int64_t row = blockIdx.x * per_block;
  if constexpr (!Block) row += threadIdx.x / 32;
  for (; row < rows; row += gridDim.x * per_block) body(row, t);
}

template <class Body>
void for_rows(int64_t rows, int64_t length, Body body) {
  constexpr int64_t kMost = 132 * 16;
  const auto blocks = [&](int64_t n) { return dim3(static_cast<unsigned>(n < kMost ? n : kMost)); };
  if (length <= kWarpRow) {
    constexpr int kSize = RowThreads<false>::kSize, kWarps = kSize / 32;
    launch(rows_kernel<false, Body>, blocks((rows + kWarps - 1) / kWarps), kSize, 0, rows, body);
  } else {
    launch(rows_kernel<true, Body>, blocks(rows), kThreads, 0, rows, body);
  }
}

}  // namespace mtcki::cuda

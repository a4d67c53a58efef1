// CUDA kernels on the CPU: the syntax of a kernel (threadIdx, __shared__, __syncthreads, shuffles)
// in terms of coroutines, one per CUDA thread; barriers and shuffles yield to a scheduler. Blocks
// run beside each other on OpenMP threads. Comes before cuda/launch.cuh where nvcc is not the compiler.
//
// Limits: threads of one block never run at the same time, so there are no real races and no memory
// model; static __shared__ arrays keep the values of an earlier block. What ends the program with a
// message: a barrier that some threads never reach, an early launch whose threads do not wait for
// the kernel before, tensor cores that read asynchronous copies without a fence. Tensor cores and
// asynchronous copies: tensor_cores.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "tensor/dtype.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float a, float b) { return {a, b}; }
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static thread_local

namespace mtcki::cuda::simt {

// What the kernel of the running coroutine sees.
struct Position {
  dim3 grid, block, block_index, thread_index;
  int thread = 0;  // linear index in its block
};
extern thread_local Position here;

enum class Wait { none, block, warpgroup, warp, turn };
void yield(Wait wait);
// Calls use(values), where values[lane] is what that lane of this warp passed to the same collect.
// No lane goes on before all of them have returned from `use`.
const uint64_t* publish(uint64_t value);
template <class F>
void collect(uint64_t value, const F& use) {
  use(publish(value));
  yield(Wait::warp);
}
// The value that lane `source` of this warp passed to the same exchange.
inline uint64_t exchange(uint64_t value, int source) {
  uint64_t out = 0;
  collect(value, [&](const uint64_t* values) { out = values[source]; });
  return out;
}
// Two warpgroups that take turns (cuda/wgmma.cuh): one waits for its turn, the other one arrives.
void wait_turn(int turn);
void arrive_turn(int turn);
// A copy (of zeros: from null) that happens as late as its thread allows, when it waits for the
// group; with the second bit of set_shuffle's seed as early as possible, at once. wait: until no more
// than `open` of the latest groups are left. publish: tensor cores see what this thread's copies
// brought; check: they are about to read [from, to).
void copy_later(void* to, const void* from, size_t bytes);
void end_copies();
void wait_copies(int open);
void publish_copies();
void check_published(const void* from, const void* to);
void* dynamic_shared();
void note_wait_for_previous();
// The order of a block's threads: a random one, which shows missing barriers; 0: as they are counted.
// With an odd seed a warp runs as far as it comes before the next one begins, with an even one all
// run in step. 1 unless MTCKI_SIMT_SHUFFLE=SEED is in the environment.
constexpr uint32_t kDefaultShuffle = 1;
void set_shuffle(uint32_t seed);
// Grid-stride loops get so few blocks that their second turns run: MTCKI_EMULATE_GRID, 0: as many as
// on a GPU.
int64_t most_blocks();

// Error when a block of this device has no room for so many bytes.
void check_shared(size_t bytes);
// Runs `thread` once per thread of the grid, or records that for the graph being captured. early:
// by launch_early().
void launch(dim3 grid, dim3 block, size_t shared, bool early, std::function<void()> thread);

template <class T>
T exchange_value(T value, int source) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t raw = 0;
  std::memcpy(&raw, &value, sizeof value);
  raw = exchange(raw, source);
  std::memcpy(&value, &raw, sizeof value);
  return value;
}

}  // namespace mtcki::cuda::simt

namespace mtcki::cuda {

template <class... P>
void allow_shared(void (*)(P...), size_t bytes) {
  simt::check_shared(bytes);
}

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
            std::type_identity_t<P>... args) {
  simt::launch(grid, block, shared, false, [=] { kernel(args...); });
}
template <class... P>
void launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                  std::type_identity_t<P>... args) {
  simt::launch(grid, block, shared, true, [=] { kernel(args...); });
}
inline void next_may_start() {}
inline void wait_for_previous() { simt::note_wait_for_previous(); }

}  // namespace mtcki::cuda

#define MTCKI_UNROLL
#define MTCKI_UNROLL_BY(n)
#define MTCKI_DYNAMIC_SHARED(T, name) \
  T* name = static_cast<T*>(::mtcki::cuda::simt::dynamic_shared())
#define threadIdx (::mtcki::cuda::simt::here.thread_index)
#define blockIdx (::mtcki::cuda::simt::here.block_index)
#define blockDim (::mtcki::cuda::simt::here.block)
#define gridDim (::mtcki::cuda::simt::here.grid)

inline void __syncthreads() { mtcki::cuda::simt::yield(mtcki::cuda::simt::Wait::block); }
inline void __syncwarp(unsigned = ~0u) { mtcki::cuda::simt::yield(mtcki::cuda::simt::Wait::warp); }
template <class T>
T __shfl_sync(unsigned, T v, int lane) {
  return mtcki::cuda::simt::exchange_value(v, lane & 31);
}
template <class T>
T __shfl_xor_sync(unsigned, T v, int mask) {
  return mtcki::cuda::simt::exchange_value(v, (mtcki::cuda::simt::here.thread & 31) ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T v, unsigned delta) {
  const int lane = mtcki::cuda::simt::here.thread & 31, source = lane + static_cast<int>(delta);
  return mtcki::cuda::simt::exchange_value(v, source < 32 ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned, T v, unsigned delta) {
  const int lane = mtcki::cuda::simt::here.thread & 31, source = lane - static_cast<int>(delta);
  return mtcki::cuda::simt::exchange_value(v, source >= 0 ? source : lane);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
// Integer atomics only: blocks run on several threads.
template <class T>
T atomicAdd(T* p, T v) {
  static_assert(std::is_integral_v<T>, "no float atomics: their order is not fixed");
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* p, T v) {
  return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* p, T v) {
  return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
template <class T>
T __ldg(const T* p) {
  return *p;
}

#include "tests/emulated/device/tensor_cores.h"

// Kernel launches, for .cu files only. The same source is compiled twice: by nvcc into device code,
// and by the host compiler for the emulated GPU of the tests, where every CUDA thread is a
// coroutine; tests/emulated/device/simt.h, which comes first then, gives it the syntax.
//
//   cuda::launch(kernel<float>, grid, block, shared_bytes, x, y, n);   on cuda::stream()
//
// Kernels use plain CUDA C++ except MTCKI_DYNAMIC_SHARED(T, name) for `extern __shared__`. Rules: no
// float atomics (reductions run in two stages in a fixed order), every lane of a warp reaches every
// shuffle, bounds are checked by the kernel, offsets are 64-bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tensor/cuda/runtime.h"
#include "tensor/dtype.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#define MTCKI_PRAGMA(text) _Pragma(#text)
#define MTCKI_UNROLL MTCKI_PRAGMA(unroll)  // before a loop
#define MTCKI_UNROLL_BY(n) MTCKI_PRAGMA(unroll n)
#define MTCKI_DYNAMIC_SHARED(T, name)                            \
  extern __shared__ __align__(16) unsigned char name##_bytes_[]; \
  T* name = reinterpret_cast<T*>(name##_bytes_)

namespace mtcki::cuda {

void check_launch(const void* kernel);  // throws Error naming the op; MTCKI_SYNC=1 waits first
void allow_shared(const void* kernel, size_t bytes);

// Before the first launch of a kernel with more than 48 KiB of dynamic shared memory.
template <class... P>
void allow_shared(void (*kernel)(P...), size_t bytes) {
  allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
            std::type_identity_t<P>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream())>>>(args...);
  check_launch(reinterpret_cast<const void*>(kernel));
}

// The same, but blocks may start when all blocks of the kernel before have called next_may_start()
// or ended, if the device can do that (programmatic dependent launch): the launch itself costs less
// then. Each thread of the kernel calls wait_for_previous() first, before it touches memory; the
// emulated GPU ends the program where one does not.
bool can_overlap_launches();
template <class... P>
void launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                  std::type_identity_t<P>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream());
  config.attrs = &early;
  config.numAttrs = can_overlap_launches() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, args...);  // check_launch reads its error
  check_launch(reinterpret_cast<const void*>(kernel));
}
__device__ inline void next_may_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace mtcki::cuda
#endif

namespace mtcki::cuda {

const void* any_kernel();  // to ask what this build has for a device (tensor/ops/cast_cuda.cu)

inline constexpr int kThreads = 256;  // of a block, unless a kernel knows better

// launch_early for a kernel that takes `bytes` of input, when these are few: beside a long kernel
// the waiting blocks only take room from side streams.
template <class... P>
void launch_small_early(size_t bytes, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                        std::type_identity_t<P>... args) {
  constexpr size_t kSmall = size_t{8} << 20;
  if (bytes <= kSmall) {
    launch_early(kernel, grid, block, shared, args...);
  } else {
    launch(kernel, grid, block, shared, args...);
  }
}

// Blocks for a grid-stride loop over n items of `per_thread` elements: enough to fill the device,
// few enough that each has work.
inline dim3 grid_for(int64_t n, int threads = kThreads, int64_t most = 132 * 16) {
#if !defined(__CUDACC__)
  most = most < simt::most_blocks() ? most : simt::most_blocks();
#endif
  const int64_t blocks = (n + threads - 1) / threads;
  return dim3(static_cast<unsigned>(blocks < most ? (blocks > 0 ? blocks : 0) : most));
}

// The type in which a kernel computes on T: float for bf16.
template <class T>
struct Compute {
  using type = T;
};
template <>
struct Compute<::mtcki::bfloat16> {
  using type = float;
};
template <class T>
using compute_t = typename Compute<T>::type;

}  // namespace mtcki::cuda

// for (int64_t i : every element that this thread has in a grid-stride loop over n)
#define MTCKI_GRID_LOOP(i, n)                                                            \
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < (n); \
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)

// T = float, double or bfloat16: the dtypes of a CUDA kernel.
#define MTCKI_DISPATCH_CUDA(dtype_, op_, T_, ...)                                           \
  do {                                                                                      \
    const ::mtcki::DType mtcki_d_ = (dtype_);                                               \
    if (mtcki_d_ == ::mtcki::DType::f32) {                                                  \
      using T_ = float;                                                                     \
      __VA_ARGS__                                                                           \
    } else if (mtcki_d_ == ::mtcki::DType::bf16) {                                          \
      using T_ = ::mtcki::bfloat16;                                                         \
      __VA_ARGS__                                                                           \
    } else if (mtcki_d_ == ::mtcki::DType::f64) {                                           \
      using T_ = double;                                                                    \
      __VA_ARGS__                                                                           \
    } else {                                                                                \
      throw ::mtcki::DTypeError(                                                            \
          ::mtcki::str(op_, ": needs f32, f64 or bf16, got ", ::mtcki::name_of(mtcki_d_))); \
    }                                                                                       \
  } while (0)

// Products by a warpgroup (four warps in a row, 128 threads) on sm_90, for .cu files that are built
// for sm_90a alone (*_sm90a_cuda.cu). Each function is one or two instructions of the PTX ISA; on
// the emulated GPU it does the same at once. Every thread of the warpgroup has to reach each.
#pragma once

#include "tensor/cuda/mma.cuh"

namespace mtcki::cuda {

inline constexpr int kWarpgroup = 128;

// B (16 x N) in shared memory as blocks of 8 rows (k) and 8 columns (n): a column of a block is 16
// bytes, its 8 columns follow each other. `next_k` bytes from a block to the one of the next 8
// rows, `next_n` to that of the next 8 columns; all multiples of 16.
#if defined(__CUDACC__)

class SharedBlocks {
 public:
  __device__ SharedBlocks(SharedAddress start, int next_k, int next_n)
      : low_(start >> 4 | static_cast<uint32_t>(next_k >> 4) << 16),
        high_(static_cast<uint32_t>(next_n >> 4)) {}
  __device__ SharedBlocks at(int bytes) const {
    SharedBlocks moved = *this;
    moved.low_ += static_cast<uint32_t>(bytes) >> 4;
    return moved;
  }
  __device__ uint64_t bits() const { return uint64_t{high_} << 32 | low_; }

 private:
  uint32_t low_, high_;  // of a matrix descriptor without swizzle
};

// d += A B, or d = A B if First, for a warpgroup of which warp w has rows 16w to 16w+15 of A
// (64 x 16) in the fragments of mma.m16n8k16 and the same rows of D: d[At + 4j + i] is what
// mma.m16n8k16 calls d[i], of columns 8j to 8j+7. Asynchronous: between begin_products and
// wait_products nothing else may touch d or a.
#define MTCKI_FLOATS_8(how, v, i)                                                       \
  how(v[i]), how(v[i + 1]), how(v[i + 2]), how(v[i + 3]), how(v[i + 4]), how(v[i + 5]), \
      how(v[i + 6]), how(v[i + 7])
#define MTCKI_FLOATS_32(how, v, i)                                                          \
  MTCKI_FLOATS_8(how, v, i), MTCKI_FLOATS_8(how, v, i + 8), MTCKI_FLOATS_8(how, v, i + 16), \
      MTCKI_FLOATS_8(how, v, i + 24)
#define MTCKI_PRODUCT_64(how, scale)                                                      \
  asm volatile(                                                                           \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "                             \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "{%32, %33, %34, %35}, %36, " scale ", 1, 1, 0;"                                    \
      : MTCKI_FLOATS_32(how, d, At)                                                       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits()))
#define MTCKI_PRODUCT_128(how, scale)                                                     \
  asm volatile(                                                                           \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "                            \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
      "{%64, %65, %66, %67}, %68, " scale ", 1, 1, 0;"                                    \
      : MTCKI_FLOATS_32(how, d, 0), MTCKI_FLOATS_32(how, d, 32)                           \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits()))
template <int N, int At, bool First>
__device__ inline void product(float (&d)[64], const uint32_t (&a)[4], const SharedBlocks& b) {
  static_assert(N == 64 || (N == 128 && At == 0));
  if constexpr (N == 128 && First) {
    MTCKI_PRODUCT_128("=f", "0");
  } else if constexpr (N == 128) {
    MTCKI_PRODUCT_128("+f", "1");
  } else if constexpr (First) {
    MTCKI_PRODUCT_64("=f", "0");
  } else {
    MTCKI_PRODUCT_64("+f", "1");
  }
}
#undef MTCKI_PRODUCT_128
#undef MTCKI_PRODUCT_64
#undef MTCKI_FLOATS_32
#undef MTCKI_FLOATS_8

// Between writes to registers or shared memory and the products that read them; shared memory
// besides needs a barrier, behind this. wait_products: until all products are done.
__device__ inline void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void end_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Size>
__device__ inline void wait_products(float (&d)[Size]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  MTCKI_UNROLL
  for (int i = 0; i < Size; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Of the threads of one warpgroup.
__device__ inline void warpgroup_barrier(int warpgroup) {
  asm volatile("bar.sync %0, 128;" ::"r"(warpgroup + 1) : "memory");
}

// Two warpgroups take turns, so that the stores of one run beside the products of the other: each
// waits for its turn and ends it, which gives the other one its own. Before all, warpgroup 1 ends
// one, so warpgroup 0 has the first. Only the time depends on it.
__device__ inline void wait_for_turn(int warpgroup) {
  asm volatile("bar.sync %0, 256;" ::"r"(warpgroup + 3) : "memory");
}
__device__ inline void end_turn(int warpgroup) {
  asm volatile("bar.arrive %0, 256;" ::"r"(4 - warpgroup) : "memory");
}

// Four 8x8 matrices of bf16 to shared memory, transposed: of v[j], row g, columns 2t and 2t+1 of
// matrix j, row i of the transposed matrix j goes to the 16 bytes that lane 8j + i passes.
__device__ inline void store_transposed(SharedAddress row, const uint32_t (&v)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
               : "memory");
}

#endif

}  // namespace mtcki::cuda

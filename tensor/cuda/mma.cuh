// Tensor cores and asynchronous copies of sm_80 and later, for .cu files only. Each function is one
// instruction of the PTX ISA, which defines what lane holds what; on the emulated GPU it does the
// same by looking into the other lanes. Every lane of a warp has to reach each of them.
//
// The fragments of mma.m16n8k16, with g = lane / 4 and t = lane % 4; two bf16 in a register, the
// lower one first:
//   A (16x16)  a[0]: row g,   columns 2t, 2t+1     a[1]: row g+8, the same columns
//              a[2]: row g,   columns 2t+8, 2t+9   a[3]: row g+8, the same columns
//   B (16x8)   b[0]: rows 2t, 2t+1, column g       b[1]: rows 2t+8, 2t+9, column g
//   D (16x8)   d[0], d[1]: row g, columns 2t, 2t+1   d[2], d[3]: row g+8, the same columns
#pragma once

#include <cstring>

#include "tensor/cuda/launch.cuh"

namespace mtcki::cuda {

#if defined(__CUDACC__)

using SharedAddress = uint32_t;
__device__ inline SharedAddress shared_address(const void* shared) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(shared));
}

// 8x8 matrices of bf16 in shared memory, each row 16 bytes at an address of its own: row i of
// matrix j at the address that lane 8j + i passes. out[j]: of matrix j transposed, row g, columns
// 2t and 2t+1, that is column g, rows 2t and 2t+1 of what lies in memory.
__device__ inline void load_transposed(uint32_t (&out)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_transposed(uint32_t (&out)[2], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(row)
               : "memory");
}

// The same not transposed: out[j] is row g, columns 2t and 2t+1 of matrix j. Four of them, upper
// left, lower left, upper right, lower right, are an A.
__device__ inline void load_matrices(uint32_t (&out)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}

// d += A B
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes from global to shared memory, zeros where !there (`global` is not read then). They have
// arrived after the wait for their group, for the thread that asked; for others after a barrier
// that follows.
__device__ inline void copy16_async(SharedAddress shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)), "r"(there ? 16 : 0)
               : "memory");
}
// 16 bytes of global memory in one instruction, which the compiler does not always make of a uint4.
__device__ inline uint4 load16(const void* global) {
  uint4 v;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global))
               : "memory");
  return v;
}
__device__ inline void store16(void* global, const uint4& v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(global)),
               "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
// Ends a group of copies; waits until at most `Open` of the latest groups may be under way.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Open>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Open) : "memory");
}

#endif

// Two bf16 in a register, as the fragments hold them.
__device__ inline uint32_t packed(float low, float high) {
  const bfloat16 v[2] = {bfloat16(low), bfloat16(high)};
  uint32_t bits;
  memcpy(&bits, v, 4);
  return bits;
}

}  // namespace mtcki::cuda

// Internal: matrix products of the CPU on plain memory, row-major C[M,N] = op(A) op(B).
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace mtcki {

using GemmFunction = void (*)(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                              const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                              int64_t ldc);
struct GemmKernel {
  const char* name;
  GemmFunction gemm;
};
// The f32 product that the settings ask for (math_settings().cpu_kernels), whatever the sizes.
const GemmKernel& select_gemm();

// oneDNN, f32.
namespace gemm_onednn {
void gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
          const float* b, int64_t ldb, float* c, int64_t ldc);
}  // namespace gemm_onednn

// oneDNN, bf16 with sums in f32, for CPUs with bf16 arithmetic (bf16_kernels()).
namespace gemm_bf16 {
// C[M,N] = op(A) op(B) + bias (f32 [N] or null), `batch` times; C f32 or bf16.
void gemm(bool trans_a, bool trans_b, int64_t batch, int64_t m, int64_t n, int64_t k,
          const bfloat16* a, const bfloat16* b, const float* bias, void* c, DType c_dtype);
}  // namespace gemm_bf16

// Built-in, register-blocked over packed panels. T: float, double.
template <class T>
void builtin_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const T* a,
                  int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc);

}  // namespace mtcki

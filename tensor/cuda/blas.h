// Matrix products on the GPU; no CUDA header is needed to include this. native/: cublasLt with an
// own workspace per stream, so that results repeat bit for bit; emulated: the CPU's built-in GEMM.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/math_mode.h"

namespace mtcki::cuda {

// Row-major C[m,n] = op(A) op(B), or C += op(A) op(B), `batch` times at the given distances.
// A and B are f32, f64 or bf16; C is of the same dtype, or f32 where A and B are bf16. Sums are f64
// for f64, else f32.
struct Gemm {
  DType in = DType::f32, out = DType::f32;
  Math math = Math::strict;
  bool trans_a = false, trans_b = false, accumulate = false;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  int64_t lda = 0, ldb = 0, ldc = 0;                 // elements from row to row as stored
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;  // elements from product to product
};
// On the current stream, m, n, k and batch at least 1. `bias` (null: none) has n elements of dtype
// `out` and is added to every row. False when that was left out, because no kernel does it.
// CaptureError when a product of this form is met for the first time while a graph is captured.
bool gemm(const Gemm& g, const void* a, const void* b, void* c, const void* bias = nullptr);

}  // namespace mtcki::cuda

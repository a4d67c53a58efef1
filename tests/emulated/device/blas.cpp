#include "tensor/cuda/blas.h"

#include <vector>

#include "tensor/ops/gemm.h"
#include "tests/emulated/device/device.h"

namespace mtcki::cuda {

namespace {

// Rows of `columns` elements, `ld` apart, as one array of the type to compute in.
template <class C, class T>
std::vector<C> gather(const T* x, int64_t rows, int64_t columns, int64_t ld) {
  std::vector<C> out(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      out[static_cast<size_t>(i * columns + j)] = static_cast<C>(x[i * ld + j]);
  return out;
}

template <class C, class In, class Out>
void run(const Gemm& g, const In* a, const In* b, Out* c) {
  const int64_t a_rows = g.trans_a ? g.k : g.m, a_columns = g.trans_a ? g.m : g.k;
  const int64_t b_rows = g.trans_b ? g.n : g.k, b_columns = g.trans_b ? g.k : g.n;
  std::vector<C> sum(static_cast<size_t>(g.m * g.n));
  for (int64_t i = 0; i < g.batch; ++i) {
    const std::vector<C> left = gather<C>(a + i * g.stride_a, a_rows, a_columns, g.lda);
    const std::vector<C> right = gather<C>(b + i * g.stride_b, b_rows, b_columns, g.ldb);
    builtin_gemm<C>(g.trans_a, g.trans_b, g.m, g.n, g.k, left.data(), a_columns, right.data(),
                    b_columns, sum.data(), g.n);
    Out* out = c + i * g.stride_c;
    for (int64_t r = 0; r < g.m; ++r)
      for (int64_t j = 0; j < g.n; ++j) {
        const C before = g.accumulate ? static_cast<C>(out[r * g.ldc + j]) : C(0);
        out[r * g.ldc + j] = static_cast<Out>(before + sum[static_cast<size_t>(r * g.n + j)]);
      }
  }
}

}  // namespace

bool gemm(const Gemm& g, const void* a, const void* b, void* c, const void* bias) {
  issue([=] {
    const DeviceAccess access;
    if (g.in == DType::f64) {
      run<double>(g, static_cast<const double*>(a), static_cast<const double*>(b),
                  static_cast<double*>(c));
    } else if (g.in == DType::f32) {
      run<float>(g, static_cast<const float*>(a), static_cast<const float*>(b),
                 static_cast<float*>(c));
    } else if (g.out == DType::f32) {
      run<float>(g, static_cast<const bfloat16*>(a), static_cast<const bfloat16*>(b),
                 static_cast<float*>(c));
    } else {
      run<float>(g, static_cast<const bfloat16*>(a), static_cast<const bfloat16*>(b),
                 static_cast<bfloat16*>(c));
    }
  });
  return bias == nullptr;
}

}  // namespace mtcki::cuda

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tensor/kernels/functors.h"
#include "tensor/ops/contrast_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// The vectorising exponential for f32, the library's for f64.
template <class T>
using RowExp = std::conditional_t<std::is_same_v<T, float>, FastExpFn, ExpFn<T>>;

// s: rows `first` on of all; row i of it has its positive in column first + i.
template <class T>
void chunk_rows(const T* s, int64_t rows, int64_t n, int64_t first, T tau, T* out, T* lse) {
  const T scale = T(1) / tau;
  parallel_for(rows, std::max<int64_t>(1, 4096 / n), [&](int64_t begin, int64_t end) {
    const RowExp<T> expo{};
    for (int64_t i = begin; i < end; ++i) {
      const T* row = s + i * n;
      T most = row[0];
#pragma omp simd reduction(max : most)
      for (int64_t j = 0; j < n; ++j) most = row[j] > most ? row[j] : most;
      double sum = 0;
      for (int64_t j0 = 0; j0 < n; j0 += 1024) {
        const int64_t j1 = std::min(n, j0 + 1024);
        T chunk = 0;
#pragma omp simd reduction(+ : chunk)
        for (int64_t j = j0; j < j1; ++j) chunk += expo((row[j] - most) * scale);
        sum += static_cast<double>(chunk);
      }
      lse[i] = most * scale + static_cast<T>(std::log(sum));
      out[i] = lse[i] - row[first + i] * scale;
    }
  });
}

template <class T>
void chunk_grad(T* s, int64_t rows, int64_t n, int64_t first, const T* g, const T* lse, T tau) {
  const T scale = T(1) / tau;
  parallel_for(rows, std::max<int64_t>(1, 4096 / n), [&](int64_t begin, int64_t end) {
    const RowExp<T> expo{};
    for (int64_t i = begin; i < end; ++i) {
      T* row = s + i * n;
      const T weight = g[i] * scale, base = lse[i];
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) {
        // No share of the softmax so small that products with it are subnormal: those would slow
        // the multiplications that follow down by a factor of a hundred.
        const T share = expo(row[j] * scale - base);
        row[j] = share < T(1e-30) ? T(0) : weight * share;
      }
      row[first + i] -= weight;
    }
  });
}

}  // namespace

void info_nce_chunk_cpu(const Tensor& s, double tau, int64_t begin, const Tensor& rows_out,
                        const Tensor& lse) {
  MTCKI_DISPATCH_FLOAT(s.dtype(), "info_nce_rows", T, {
    chunk_rows(s.data<T>(), s.size(0), s.size(1), begin, static_cast<T>(tau),
               rows_out.data<T>() + begin, lse.data<T>() + begin);
  });
}

void info_nce_chunk_grad_cpu(const Tensor& s, const Tensor& g, const Tensor& lse, double tau,
                             int64_t begin) {
  MTCKI_DISPATCH_FLOAT(s.dtype(), "info_nce_grad", T, {
    chunk_grad(s.data<T>(), s.size(0), s.size(1), begin, g.data<T>() + begin, lse.data<T>() + begin,
               static_cast<T>(tau));
  });
}

}  // namespace mtcki

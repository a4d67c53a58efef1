#include <cmath>

#include "tensor/kernels/rows.cuh"
#include "tensor/ops/contrast_kernels.h"

namespace mtcki {

namespace {

using cuda::for_rows;

template <class T>
struct ChunkRow {
  const T* s;
  int64_t first;  // the row of all that row 0 of s is; its positive's column
  T scale;        // 1/tau
  T *loss, *lse;
  int64_t n;
  template <class Threads>
  __device__ void operator()(int64_t i, const Threads& th) const {
    const T* row = s + i * n;
    T most = -T(INFINITY);
    for (int64_t j = th.index(); j < n; j += th.count()) most = row[j] > most ? row[j] : most;
    most = th.largest(most);
    double sum = 0;
    for (int64_t j = th.index(); j < n; j += th.count())
      sum += static_cast<double>(std::exp((row[j] - most) * scale));
    sum = th.sum(sum);
    if (th.index() != 0) return;
    const T total = most * scale + static_cast<T>(std::log(sum));
    lse[i] = total;
    loss[i] = total - row[first + i] * scale;
  }
};

template <class T>
struct ChunkGrad {
  T* s;
  const T* g;
  int64_t first;
  const T* lse;
  T scale;
  int64_t n;
  template <class Threads>
  __device__ void operator()(int64_t i, const Threads& th) const {
    T* row = s + i * n;
    const T weight = g[i] * scale, base = lse[i];
    for (int64_t j = th.index(); j < n; j += th.count()) {
      const T slope = weight * std::exp(row[j] * scale - base);
      row[j] = j == first + i ? slope - weight : slope;
    }
  }
};

}  // namespace

void info_nce_chunk_cuda(const Tensor& s, double tau, int64_t begin, const Tensor& rows_out,
                         const Tensor& lse) {
  const int64_t n = s.size(1);
  MTCKI_DISPATCH_FLOAT(s.dtype(), "info_nce_rows", T, {
    for_rows(s.size(0), n,
             ChunkRow<T>{s.data<T>(), begin, T(1) / static_cast<T>(tau), rows_out.data<T>() + begin,
                         lse.data<T>() + begin, n});
  });
}

void info_nce_chunk_grad_cuda(const Tensor& s, const Tensor& g, const Tensor& lse, double tau,
                              int64_t begin) {
  const int64_t n = s.size(1);
  MTCKI_DISPATCH_FLOAT(s.dtype(), "info_nce_grad", T, {
    for_rows(s.size(0), n,
             ChunkGrad<T>{s.data<T>(), g.data<T>() + begin, begin, lse.data<T>() + begin,
                          T(1) / static_cast<T>(tau), n});
  });
}

}  // namespace mtcki

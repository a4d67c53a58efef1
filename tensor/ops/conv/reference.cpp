// Convolution by its definition. Every output element (or weight) is owned by one thread, so the
// result does not depend on the number of threads. The innermost loop runs along an image row,
// which the compiler vectorises for stride 1.
#include <algorithm>

#include "tensor/ops/conv/kernels.h"
#include "tensor/parallel.h"

namespace mtcki::conv_ref {

namespace {

// Output positions [begin, end) whose tap `offset` = tap * dilation - pad falls into [0, size).
struct Range {
  int64_t begin, end;
};
Range valid(int64_t offset, int64_t stride, int64_t size, int64_t outputs) {
  const int64_t begin = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
  const int64_t end = size <= offset ? 0 : (size - 1 - offset) / stride + 1;
  return {std::min(begin, outputs), std::max(std::min(end, outputs), std::min(begin, outputs))};
}

}  // namespace

template <class T>
void forward(const ConvProblem& d, const T* x, const T* w, const T* bias, T* y) {
  const int64_t cg = d.c / d.groups, kg = d.k / d.groups;
  parallel_for(d.n * d.k, 1, [&](int64_t begin, int64_t end) {
    for (int64_t nk = begin; nk < end; ++nk) {
      const int64_t n = nk / d.k, k = nk % d.k, first = k / kg * cg;
      T* out = y + nk * d.p * d.q;
      std::fill(out, out + d.p * d.q, bias ? bias[k] : T(0));
      for (int64_t c = 0; c < cg; ++c) {
        const T* in = x + (n * d.c + first + c) * d.h * d.w;
        const T* taps = w + (k * cg + c) * d.r * d.s;
        for (int64_t i = 0; i < d.r; ++i) {
          const int64_t oi = i * d.dil_h - d.pad_h;
          const Range rows = valid(oi, d.stride_h, d.h, d.p);
          for (int64_t j = 0; j < d.s; ++j) {
            const int64_t oj = j * d.dil_w - d.pad_w;
            const Range cols = valid(oj, d.stride_w, d.w, d.q);
            const T weight = taps[i * d.s + j];
            for (int64_t p = rows.begin; p < rows.end; ++p) {
              const T* row = in + (p * d.stride_h + oi) * d.w + oj;
              T* o = out + p * d.q;
              if (d.stride_w == 1) {
                for (int64_t q = cols.begin; q < cols.end; ++q) o[q] += weight * row[q];
              } else {
                for (int64_t q = cols.begin; q < cols.end; ++q)
                  o[q] += weight * row[q * d.stride_w];
              }
            }
          }
        }
      }
    }
  });
}

template <class T>
void grad_input(const ConvProblem& d, const T* gy, const T* w, T* gx) {
  const int64_t cg = d.c / d.groups, kg = d.k / d.groups;
  parallel_for(d.n * d.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t nc = begin; nc < end; ++nc) {
      const int64_t n = nc / d.c, c = nc % d.c, first = c / cg * kg;
      T* out = gx + nc * d.h * d.w;
      std::fill(out, out + d.h * d.w, T(0));
      for (int64_t k = 0; k < kg; ++k) {
        const T* in = gy + (n * d.k + first + k) * d.p * d.q;
        const T* taps = w + ((first + k) * cg + c % cg) * d.r * d.s;
        for (int64_t i = 0; i < d.r; ++i) {
          const int64_t oi = i * d.dil_h - d.pad_h;
          const Range rows = valid(oi, d.stride_h, d.h, d.p);
          for (int64_t j = 0; j < d.s; ++j) {
            const int64_t oj = j * d.dil_w - d.pad_w;
            const Range cols = valid(oj, d.stride_w, d.w, d.q);
            const T weight = taps[i * d.s + j];
            for (int64_t p = rows.begin; p < rows.end; ++p) {
              T* row = out + (p * d.stride_h + oi) * d.w + oj;
              const T* g = in + p * d.q;
              if (d.stride_w == 1) {
                for (int64_t q = cols.begin; q < cols.end; ++q) row[q] += weight * g[q];
              } else {
                for (int64_t q = cols.begin; q < cols.end; ++q)
                  row[q * d.stride_w] += weight * g[q];
              }
            }
          }
        }
      }
    }
  });
}

template <class T>
void grad_weight(const ConvProblem& d, const T* gy, const T* x, T* gw) {
  const int64_t cg = d.c / d.groups, kg = d.k / d.groups;
  parallel_for(d.k * cg, 1, [&](int64_t begin, int64_t end) {
    for (int64_t kc = begin; kc < end; ++kc) {
      const int64_t k = kc / cg, c = k / kg * cg + kc % cg;
      for (int64_t i = 0; i < d.r; ++i) {
        const int64_t oi = i * d.dil_h - d.pad_h;
        const Range rows = valid(oi, d.stride_h, d.h, d.p);
        for (int64_t j = 0; j < d.s; ++j) {
          const int64_t oj = j * d.dil_w - d.pad_w;
          const Range cols = valid(oj, d.stride_w, d.w, d.q);
          double total = 0;
          for (int64_t n = 0; n < d.n; ++n) {
            const T* in = x + (n * d.c + c) * d.h * d.w;
            const T* g = gy + (n * d.k + k) * d.p * d.q;
            for (int64_t p = rows.begin; p < rows.end; ++p) {
              const T* row = in + (p * d.stride_h + oi) * d.w + oj;
              const T* o = g + p * d.q;
              T sum = 0;
#pragma omp simd reduction(+ : sum)
              for (int64_t q = cols.begin; q < cols.end; ++q) sum += o[q] * row[q * d.stride_w];
              total += static_cast<double>(sum);
            }
          }
          gw[(kc * d.r + i) * d.s + j] = static_cast<T>(total);
        }
      }
    }
  });
}

#define MTCKI_INSTANTIATE(T)                                                      \
  template void forward<T>(const ConvProblem&, const T*, const T*, const T*, T*); \
  template void grad_input<T>(const ConvProblem&, const T*, const T*, T*);        \
  template void grad_weight<T>(const ConvProblem&, const T*, const T*, T*);
MTCKI_INSTANTIATE(float)
MTCKI_INSTANTIATE(double)
#undef MTCKI_INSTANTIATE

}  // namespace mtcki::conv_ref

// Built-in GEMM. The classic scheme: panels of B (KC x NC) and A (MC x KC) are packed so that the
// register kernel reads both with unit stride; the kernel keeps MR x 2 vectors of C in registers.
// Threads own rectangles of C, so results do not depend on timing.
#include "tensor/ops/gemm.h"

#include <algorithm>
#include <cstring>

#include "tensor/kernels/settings.h"
#include "tensor/kernels/simd.h"
#include "tensor/parallel.h"
#include "tensor/scratch.h"

namespace mtcki {

namespace {

constexpr int kRows = kSimdRegisters == 32 ? 14 : 6;
constexpr int64_t kDepth = 256;

template <class T>
struct Blocking {
  static constexpr int64_t width = 2 * Simd<T>::width;
  static constexpr int64_t rows = kRows * (kSimdRegisters == 32 ? 8 : 16);
  static constexpr int64_t columns = 1024;
};

// C[R, 2 vectors] (+)= A panel [depth][kRows] x B panel [depth][width].
template <class T, int R>
void kernel(int64_t depth, const T* a, const T* b, T* c, int64_t ldc, bool first) {
  using V = typename Simd<T>::Vector;
  constexpr int W = Simd<T>::width;
  V acc[R][2];
  MTCKI_UNROLL for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = V{};
  for (int64_t k = 0; k < depth; ++k) {
    const V b0 = load_once<T>(b), b1 = load_once<T>(b + W);
    MTCKI_UNROLL for (int r = 0; r < R; ++r) {
      const V x = broadcast<T>(a[r]);
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
    a += kRows;
    b += 2 * W;
  }
  MTCKI_UNROLL for (int r = 0; r < R; ++r) {
    MTCKI_UNROLL for (int v = 0; v < 2; ++v) {
      T* out = c + r * ldc + v * W;
      store<T>(out, first ? acc[r][v] : load<T>(out) + acc[r][v]);
    }
  }
}

template <class T>
using Kernel = void (*)(int64_t, const T*, const T*, T*, int64_t, bool);

template <class T, int... R>
Kernel<T> pick(int rows, std::integer_sequence<int, R...>) {
  static constexpr Kernel<T> table[] = {kernel<T, R + 1>...};
  return table[rows - 1];
}

// op(A) rows [0,rows) x [0,depth) into panels of kRows rows, zero-filled: [panel][k][kRows].
template <class T>
void pack_a(bool trans, const T* a, int64_t lda, int64_t rows, int64_t depth, T* out) {
  for (int64_t i = 0; i < rows; i += kRows) {
    const int64_t count = std::min<int64_t>(kRows, rows - i);
    for (int64_t k = 0; k < depth; ++k, out += kRows) {
      int64_t r = 0;
      if (trans) {
        for (; r < count; ++r) out[r] = a[k * lda + i + r];
      } else {
        for (; r < count; ++r) out[r] = a[(i + r) * lda + k];
      }
      for (; r < kRows; ++r) out[r] = T(0);
    }
  }
}

// op(B) [0,depth) x columns [0,columns) into panels of `width` columns: [panel][k][width].
template <class T>
void pack_b(bool trans, const T* b, int64_t ldb, int64_t depth, int64_t columns, T* out) {
  constexpr int64_t width = Blocking<T>::width;
  for (int64_t j = 0; j < columns; j += width, out += depth * width) {
    const int64_t count = std::min(width, columns - j);
    if (trans) {
      for (int64_t c = 0; c < width; ++c)
        for (int64_t k = 0; k < depth; ++k)
          out[k * width + c] = c < count ? b[(j + c) * ldb + k] : T(0);
    } else {
      for (int64_t k = 0; k < depth; ++k) {
        std::memcpy(out + k * width, b + k * ldb + j, static_cast<size_t>(count) * sizeof(T));
        std::fill(out + k * width + count, out + (k + 1) * width, T(0));
      }
    }
  }
}

// One thread's rectangle of C.
template <class T>
void rectangle(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda,
               const T* b, int64_t ldb, T* c, int64_t ldc) {
  using B = Blocking<T>;
  const auto up = [](int64_t x, int64_t to) { return (x + to - 1) / to * to; };
  const int64_t mc = std::min(B::rows, up(m, kRows)), nc = std::min(B::columns, up(n, B::width));
  const int64_t kc = std::min(kDepth, k);
  Scratch a_pack(static_cast<size_t>(mc * kc) * sizeof(T));
  Scratch b_pack(static_cast<size_t>(nc * kc) * sizeof(T));
  alignas(64) T edge[kRows * B::width];
  const auto rows_table = std::make_integer_sequence<int, kRows>();
  for (int64_t j0 = 0; j0 < n; j0 += nc) {
    const int64_t columns = std::min(nc, n - j0);
    for (int64_t k0 = 0; k0 < k; k0 += kc) {
      const int64_t depth = std::min(kc, k - k0);
      pack_b(trans_b, trans_b ? b + j0 * ldb + k0 : b + k0 * ldb + j0, ldb, depth, columns,
             b_pack.as<T>());
      for (int64_t i0 = 0; i0 < m; i0 += mc) {
        const int64_t rows = std::min(mc, m - i0);
        pack_a(trans_a, trans_a ? a + k0 * lda + i0 : a + i0 * lda + k0, lda, rows, depth,
               a_pack.as<T>());
        for (int64_t j = 0; j < columns; j += B::width) {
          const T* bp = b_pack.as<T>() + j * depth;
          const int64_t width = std::min(B::width, columns - j);
          for (int64_t i = 0; i < rows; i += kRows) {
            const int count = static_cast<int>(std::min<int64_t>(kRows, rows - i));
            const Kernel<T> run = pick<T>(count, rows_table);
            const T* ap = a_pack.as<T>() + i * depth;
            T* out = c + (i0 + i) * ldc + j0 + j;
            if (width == B::width) {
              run(depth, ap, bp, out, ldc, k0 == 0);
              continue;
            }
            run(depth, ap, bp, edge, B::width, true);
            for (int r = 0; r < count; ++r)
              for (int64_t x = 0; x < width; ++x)
                out[r * ldc + x] = (k0 == 0 ? T(0) : out[r * ldc + x]) + edge[r * B::width + x];
          }
        }
      }
    }
  }
}

}  // namespace

template <class T>
void builtin_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const T* a,
                  int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t i = 0; i < m; ++i) std::fill(c + i * ldc, c + i * ldc + n, T(0));
    return;
  }
  constexpr int64_t width = Blocking<T>::width;
  const int64_t row_panels = (m + kRows - 1) / kRows, column_panels = (n + width - 1) / width;
  // A grid of threads that keeps the rectangles close to square; small products stay on one thread.
  const int64_t threads =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) < 2e5
          ? 1
          : num_threads();
  int64_t grid_m = 1, grid_n = 1, best = -1;
  for (int64_t tm = 1; tm <= threads; ++tm) {
    if (threads % tm != 0) continue;
    const int64_t tn = threads / tm;
    if (tm > row_panels || tn > column_panels) continue;
    const int64_t cost = (row_panels + tm - 1) / tm * kRows + (column_panels + tn - 1) / tn * width;
    if (best < 0 || cost < best) best = cost, grid_m = tm, grid_n = tn;
  }
  parallel_for(grid_m * grid_n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t ti = t / grid_n, tj = t % grid_n;
      const int64_t i0 = row_panels * ti / grid_m * kRows;
      const int64_t i1 = std::min(m, row_panels * (ti + 1) / grid_m * kRows);
      const int64_t j0 = column_panels * tj / grid_n * width;
      const int64_t j1 = std::min(n, column_panels * (tj + 1) / grid_n * width);
      if (i0 >= i1 || j0 >= j1) continue;
      rectangle(trans_a, trans_b, i1 - i0, j1 - j0, k, trans_a ? a + i0 : a + i0 * lda, lda,
                trans_b ? b + j0 * ldb : b + j0, ldb, c + i0 * ldc + j0, ldc);
    }
  });
}

template void builtin_gemm<float>(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t,
                                  const float*, int64_t, float*, int64_t);
template void builtin_gemm<double>(bool, bool, int64_t, int64_t, int64_t, const double*, int64_t,
                                   const double*, int64_t, double*, int64_t);

const GemmKernel& select_gemm() {
  static constexpr GemmKernel onednn{"onednn", gemm_onednn::gemm};
  static constexpr GemmKernel builtin{"builtin", builtin_gemm<float>};
  return math_settings().cpu_kernels == CpuKernels::builtin || !onednn_available() ? builtin
                                                                                   : onednn;
}

}  // namespace mtcki

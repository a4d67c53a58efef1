// Winograd weight gradient: dW = G^T [ sum over tiles (B^T x B) * (A gy A^T) ] G.
//
// A chunk of tiles is transformed to V[36][tile][c] and Y[36][tile][k]; per rectangle of channels
// 36 products over the chunk's tiles go into a local M and, transformed back, are added to dW. So
// the 36-point M is never stored as a whole, and f32 sums are short: one chunk, then chunk by
// chunk.
//
// Few channels: every thread has its own tiles and its own dW, added up at the end in thread order.
// Many: all threads transform one chunk together, and each owns rectangles of dW.
#include <omp.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tensor/ops/conv_kernels.h"
#include "tensor/ops/winograd_transform.h"
#include "tensor/parallel.h"

namespace mtcki::conv_winograd {

namespace {

using namespace winograd;  // NOLINT: the transforms are this file's vocabulary

constexpr int kRows = kSimdRegisters == 32 ? 14 : 6;  // input channels in registers
constexpr int kColumns = 2 * kWidth;                  // output channels in registers
constexpr int64_t kRectangle = 32;                    // input channels of one local M

struct Chunk {
  const ConvProblem& d;
  int64_t block;  // tiles that fit
  float *v, *y;   // [36][block][c + pad], [36][block][k + pad]
  int64_t v_row() const { return row(d.c); }
  int64_t y_row() const { return row(d.k); }
  int64_t v_plane() const { return plane_size(block * v_row()); }
  int64_t y_plane() const { return plane_size(block * y_row()); }
  // The products walk down columns: rows of a power of two would share a few cache sets.
  static int64_t row(int64_t channels) { return channels < 64 ? channels : channels + 16; }
  static size_t bytes(int64_t channels, int64_t block) {
    return static_cast<size_t>(kPoints * plane_size(block * row(channels))) * sizeof(float);
  }
};

// m[R][KV vectors] (row distance kColumns) = sum over tiles of v[t][R] y[t][KV vectors].
template <int R, int KV>
void product(int64_t tiles, const float* v, int64_t v_row, const float* y, int64_t y_row,
             float* m) {
  V acc[R][KV];
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] =
      V{};
  for (int64_t t = 0; t < tiles; ++t) {
    V yv[KV];
    MTCKI_UNROLL for (int k = 0; k < KV; ++k) yv[k] = load(y + k * kWidth);
    MTCKI_UNROLL for (int r = 0; r < R; ++r) {
      const V x = broadcast(v[r]);
      MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] += x * yv[k];
    }
    v += v_row;
    y += y_row;
  }
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k)
      store(m + r * kColumns + k * kWidth, acc[r][k]);
}

using Product = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float*);
template <int KV, int... R>
Product pick(int rows, std::integer_sequence<int, R...>) {
  static constexpr Product table[] = {product<R + 1, KV>...};
  return table[rows - 1];
}

// Transforms tiles [begin, end) into the chunk, whose tile 0 is `first`.
void transform(const Chunk& k, const float* x, const float* gy, int64_t first, int64_t begin,
               int64_t end) {
  const ConvProblem& d = k.d;
  const int64_t tw = (d.q + kOut - 1) / kOut, per_image = (d.p + kOut - 1) / kOut * tw;
  const int64_t v_plane = k.v_plane(), y_plane = k.y_plane();
  for (int64_t t = begin; t < end; ++t) {
    const int64_t n = t / per_image, r = t % per_image;
    const int64_t row = r / tw * kOut, column = r % tw * kOut;
    {
      const int64_t top = row - d.pad_h, left = column - d.pad_w;
      const Span rows = clip(top, kIn, d.h), columns = clip(left, kIn, d.w);
      const bool inside = rows.all(kIn) && columns.all(kIn);
      float* out = k.v + (t - first) * k.v_row();
      for (int64_t c = 0; c < d.c; c += kWidth) {
        const float* image = x + (n * d.c + c) * d.h * d.w;
        if (inside) {
          input_tile<false>(image, top, left, d.w * kWidth, rows, columns, out + c, v_plane);
        } else {
          input_tile<true>(image, top, left, d.w * kWidth, rows, columns, out + c, v_plane);
        }
      }
    }
    const Span rows = clip(row, kOut, d.p), columns = clip(column, kOut, d.q);
    const bool inside = rows.all(kOut) && columns.all(kOut);
    float* out = k.y + (t - first) * k.y_row();
    for (int64_t c = 0; c < d.k; c += kWidth) {
      const float* image = gy + (n * d.k + c) * d.p * d.q;
      if (inside) {
        gradient_tile<false>(image, row, column, d.q * kWidth, rows, columns, out + c, y_plane);
      } else {
        gradient_tile<true>(image, row, column, d.q * kWidth, rows, columns, out + c, y_plane);
      }
    }
  }
}

// Adds the chunk's share of dW[9][c][k] for input channels [c0, c1) and one group of k.
template <int KV>
void accumulate(const Chunk& k, int64_t tiles, int64_t c0, int64_t c1, int64_t k0, float* m,
                float* dw) {
  const ConvProblem& d = k.d;
  const int64_t channels = c1 - c0, parts = (channels + kRows - 1) / kRows;
  const int64_t plane = plane_size(channels * kColumns);
  for (int point = 0; point < kPoints; ++point) {
    const float* v = k.v + point * k.v_plane() + c0;
    const float* y = k.y + point * k.y_plane() + k0;
    for (int64_t part = 0; part < parts; ++part) {  // near-equal shares of the rows
      const int64_t a = channels * part / parts, b = channels * (part + 1) / parts;
      pick<KV>(static_cast<int>(b - a), std::make_integer_sequence<int, kRows>())(
          tiles, v + a, k.v_row(), y, k.y_row(), m + point * plane + a * kColumns);
    }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < KV; ++v) {
      const float* from = m + c * kColumns + v * kWidth;
      V rows[kTaps][kIn];
      MTCKI_UNROLL for (int j = 0; j < kIn; ++j) {
        V x[kIn], g[kTaps];
        MTCKI_UNROLL for (int i = 0; i < kIn; ++i) x[i] = load(from + (i * kIn + j) * plane);
        weight_adjoint(x, g);
        MTCKI_UNROLL for (int i = 0; i < kTaps; ++i) rows[i][j] = g[i];
      }
      MTCKI_UNROLL for (int i = 0; i < kTaps; ++i) {
        V g[kTaps];
        weight_adjoint(rows[i], g);
        MTCKI_UNROLL for (int j = 0; j < kTaps; ++j) {
          float* out = dw + ((i * kTaps + j) * d.c + c0 + c) * d.k + k0 + v * kWidth;
          store(out, load(out) + g[j]);
        }
      }
    }
}

void accumulate(const Chunk& k, int64_t tiles, int64_t c0, int64_t c1, int64_t k0, float* m,
                float* dw) {
  if (k0 + kColumns <= k.d.k) {
    accumulate<2>(k, tiles, c0, c1, k0, m, dw);
  } else {
    accumulate<1>(k, tiles, c0, c1, k0, m, dw);
  }
}

// gw[k][c][9] = sum over parts of dw[part][9][c][k].
void collect(const ConvProblem& d, const float* dw, int64_t parts, float* gw) {
  const int64_t size = 9 * d.c * d.k;
  parallel_for(d.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      for (int t = 0; t < 9; ++t) {
        const float* from = dw + (t * d.c + c) * d.k;
        for (int64_t k = 0; k < d.k; ++k) {
          float sum = from[k];
          for (int64_t p = 1; p < parts; ++p) sum += from[p * size + k];
          gw[(k * d.c + c) * 9 + t] = sum;
        }
      }
  });
}

constexpr size_t kLocal = kPoints * (kRectangle * kColumns + 16) * sizeof(float);

void split_tiles(const ConvProblem& d, int64_t tiles, const float* gy, const float* x, float* gw) {
  const int64_t threads = std::min<int64_t>(num_threads(), tiles), size = 9 * d.c * d.k;
  const int64_t fit = (int64_t{768} << 10) / (kPoints * 4 * (d.c + d.k));
  const int64_t block = std::clamp<int64_t>(fit, 48, 192);
  Scratch parts(static_cast<size_t>(threads * size) * sizeof(float));
  parallel_for(threads, 1, [&](int64_t first, int64_t last) {
    Scratch v(Chunk::bytes(d.c, block)), y(Chunk::bytes(d.k, block)), m(kLocal);
    const Chunk chunk{d, block, v.as(), y.as()};
    for (int64_t part = first; part < last; ++part) {
      float* dw = parts.as() + part * size;
      std::fill(dw, dw + size, 0.0f);
      const int64_t begin = tiles * part / threads, end = tiles * (part + 1) / threads;
      for (int64_t t = begin; t < end; t += block) {
        const int64_t stop = std::min(end, t + block);
        transform(chunk, x, gy, t, t, stop);
        for (int64_t c = 0; c < d.c; c += kRectangle)
          for (int64_t k = 0; k < d.k; k += kColumns)
            accumulate(chunk, stop - t, c, std::min(d.c, c + kRectangle), k, m.as(), dw);
      }
    }
  });
  collect(d, parts.as(), threads, gw);
}

void split_channels(const ConvProblem& d, int64_t tiles, const float* gy, const float* x,
                    float* gw) {
  const int64_t fit = (int64_t{16} << 20) / (kPoints * 4 * (d.c + d.k));
  const int64_t blocks = (tiles + fit - 1) / std::max<int64_t>(1, fit);
  const int64_t block = (tiles + blocks - 1) / blocks;
  const int64_t rectangles_c = (d.c + kRectangle - 1) / kRectangle;
  const int64_t rectangles_k = (d.k + kColumns - 1) / kColumns;
  Scratch v(Chunk::bytes(d.c, block)), y(Chunk::bytes(d.k, block));
  Scratch dw(static_cast<size_t>(9 * d.c * d.k) * sizeof(float));
  const Chunk chunk{d, block, v.as(), y.as()};
  parallel_for(9 * d.c * d.k, 1 << 16, [&](int64_t begin, int64_t end) {
    std::fill(dw.as() + begin, dw.as() + end, 0.0f);
  });
  for (int64_t t = 0; t < tiles; t += block) {
    const int64_t stop = std::min(tiles, t + block);
    parallel_for(stop - t, 1, [&](int64_t begin, int64_t end) {
      transform(chunk, x, gy, t, t + begin, t + end);
    });
    parallel_for(rectangles_c * rectangles_k, 1, [&](int64_t begin, int64_t end) {
      Scratch m(kLocal);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i / rectangles_k * kRectangle, k = i % rectangles_k * kColumns;
        accumulate(chunk, stop - t, c, std::min(d.c, c + kRectangle), k, m.as(), dw.as());
      }
    });
  }
  collect(d, dw.as(), 1, gw);
}

}  // namespace

void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  const int64_t tiles = d.n * ((d.p + kOut - 1) / kOut) * ((d.q + kOut - 1) / kOut);
  (d.c * d.k >= 192 * 192 ? split_channels : split_tiles)(d, tiles, gy, x, gw);
}

}  // namespace mtcki::conv_winograd

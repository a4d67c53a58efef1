// Internal: the one-dimensional transforms of Winograd's minimal filtering (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", 2015) with points 0, 1, -1, 2, -2, infinity. Each
// works on six (or four, or three) registers; applied to columns, then to rows, it makes the
// two-dimensional transform.
//   F(4,3):  y = A^T [(G g) * (B^T d)]          4 outputs, 3 taps, 6 inputs
//   F(3,4):  dw = G^T [(A dy) * (B^T d)]        its gradient with respect to the taps
#pragma once

#include "tensor/ops/simd.h"

namespace mtcki::winograd {

constexpr int kIn = 6, kOut = 4, kTaps = 3, kPoints = kIn * kIn;
using V = FloatVector;
constexpr int kWidth = Simd<float>::width;

#define MTCKI_INLINE inline __attribute__((always_inline))

// x <- B^T x, six values.
MTCKI_INLINE void input_transform(V* x) {
  const V a = x[4] - 4.0f * x[2], b = x[3] - 4.0f * x[1];
  const V c = x[4] - x[2], d = 2.0f * (x[3] - x[1]);
  x[0] = 4.0f * x[0] + (x[4] - 5.0f * x[2]);
  x[5] = 4.0f * x[1] + (x[5] - 5.0f * x[3]);
  x[1] = a + b;
  x[2] = a - b;
  x[3] = c + d;
  x[4] = c - d;
}

// y = A^T m: six values to four.
MTCKI_INLINE void output_transform(const V* m, V* y) {
  const V s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  y[0] = m[0] + (s + s2);
  y[1] = d + 2.0f * d2;
  y[2] = s + 4.0f * s2;
  y[3] = (d + 8.0f * d2) + m[5];
}

// o = A y: four values to six.
MTCKI_INLINE void output_adjoint(const V* y, V* o) {
  const V even = y[0] + y[2], odd = y[1] + y[3];
  const V even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
  o[0] = y[0];
  o[1] = even + odd;
  o[2] = even - odd;
  o[3] = even2 + odd2;
  o[4] = even2 - odd2;
  o[5] = y[3];
}

// u = G g: three taps to six.
MTCKI_INLINE void weight_transform(const V* g, V* u) {
  const V outer = (1.0f / 6) * (g[0] + g[2]), middle = (1.0f / 6) * g[1];
  const V outer2 = (1.0f / 24) * g[0] + (1.0f / 6) * g[2], middle2 = (1.0f / 12) * g[1];
  u[0] = 0.25f * g[0];
  u[1] = -outer - middle;
  u[2] = middle - outer;
  u[3] = outer2 + middle2;
  u[4] = outer2 - middle2;
  u[5] = g[2];
}

// g = G^T u: six values to three taps.
MTCKI_INLINE void weight_adjoint(const V* u, V* g) {
  const V s = (1.0f / 6) * (u[1] + u[2]), s2 = u[3] + u[4];
  g[0] = 0.25f * u[0] + ((1.0f / 24) * s2 - s);
  g[1] = (1.0f / 6) * (u[2] - u[1]) + (1.0f / 12) * (u[3] - u[4]);
  g[2] = ((1.0f / 6) * s2 - s) + u[5];
}

// Floats of one of the 36 planes that holds at least `size`: an odd number of cache lines, so that
// the planes, written at once, fall into different sets of the first-level cache.
MTCKI_INLINE int64_t plane_size(int64_t size) { return (((size + 15) / 16) | 1) * 16; }

// The rows or columns [begin, end) of a tile that lie inside the image.
struct Span {
  int begin, end;
  bool all(int size) const { return begin == 0 && end == size; }
};
MTCKI_INLINE Span clip(int64_t first, int size, int64_t limit) {
  const int64_t begin = first < 0 ? -first : 0;
  const int64_t end = first + size > limit ? limit - first : size;
  return {static_cast<int>(begin < size ? begin : size), static_cast<int>(end > 0 ? end : 0)};
}

// The n x tiles_h x tiles_w tiles of 4x4 outputs, and where tile t lies.
struct Tiling {
  int64_t tiles_h, tiles_w;
  Tiling(int64_t p, int64_t q) : tiles_h((p + kOut - 1) / kOut), tiles_w((q + kOut - 1) / kOut) {}
  int64_t per_image() const { return tiles_h * tiles_w; }
};
struct Tile {
  int64_t n, row, column;  // image, first pixel (may lie outside)
  Span rows, columns;      // inside the image
  bool inside;
};
// Places tiles [begin, end) of size `size`, shifted by the padding, in an image of h x w.
inline void place(const Tiling& g, int64_t begin, int64_t end, int size, int64_t pad_h,
                  int64_t pad_w, int64_t h, int64_t w, Tile* out) {
  for (int64_t t = begin; t < end; ++t, ++out) {
    const int64_t r = t % g.per_image();
    out->n = t / g.per_image();
    out->row = r / g.tiles_w * kOut - pad_h;
    out->column = r % g.tiles_w * kOut - pad_w;
    out->rows = clip(out->row, size, h);
    out->columns = clip(out->column, size, w);
    out->inside = out->rows.all(size) && out->columns.all(size);
  }
}

// Asks for the 4x4 pixels of units [from, to) ahead of their use; units count `blocks` channel
// blocks from block0 on, tile by tile from `first`. The products between two transforms leave the
// memory system idle, and a tile's short rows defeat the hardware's prefetchers.
template <bool kWrite>
MTCKI_INLINE void prefetch(const float* data, int64_t channels, int64_t h, int64_t w,
                           const Tiling& g, int64_t first, int64_t block0, int64_t blocks,
                           int64_t from, int64_t to) {
  for (int64_t u = from; u < to; ++u) {
    const int64_t t = first + u / blocks, block = block0 + u % blocks;
    const int64_t n = t / g.per_image(), r = t % g.per_image();
    const int64_t row = r / g.tiles_w * kOut, column = r % g.tiles_w * kOut;
    const float* p = data + ((n * channels / kWidth + block) * h * w + row * w + column) * kWidth;
    const int64_t rows = kOut < h - row ? kOut : h - row;
    for (int64_t i = 0; i < rows; ++i, p += w * kWidth)
      for (int64_t line = 0; line < kOut * kWidth; line += 16)
        __builtin_prefetch(p + line, kWrite ? 1 : 0, 2);
  }
}

// B^T d B of one tile of one channel plane; pixels outside are zero. out[point * step].
template <bool kBorder>
MTCKI_INLINE void input_tile(const float* image, const Tile& tile, int64_t row_stride, float* out,
                             int64_t step) {
  const Span rows = tile.rows, columns = tile.columns;
  const int64_t first = tile.row * row_stride + tile.column * kWidth;
  V t[kIn][kIn];
  MTCKI_UNROLL for (int j = 0; j < kIn; ++j) {
    V x[kIn];
    const bool in_columns = !kBorder || (j >= columns.begin && j < columns.end);
    MTCKI_UNROLL for (int i = 0; i < kIn; ++i) {
      if (!kBorder || (in_columns && i >= rows.begin && i < rows.end)) {
        x[i] = load(image + first + i * row_stride + j * kWidth);
      } else {
        x[i] = V{};
      }
    }
    input_transform(x);
    MTCKI_UNROLL for (int i = 0; i < kIn; ++i) t[i][j] = x[i];
  }
  MTCKI_UNROLL for (int i = 0; i < kIn; ++i) {
    input_transform(t[i]);
    MTCKI_UNROLL for (int j = 0; j < kIn; ++j) store(out + (i * kIn + j) * step, t[i][j]);
  }
}

// A dy A^T of one 4x4 tile of the output's gradient.
template <bool kBorder>
MTCKI_INLINE void gradient_tile(const float* image, const Tile& tile, int64_t row_stride,
                                float* out, int64_t step) {
  const Span rows = tile.rows, columns = tile.columns;
  const int64_t first = tile.row * row_stride + tile.column * kWidth;
  V t[kIn][kOut];
  MTCKI_UNROLL for (int j = 0; j < kOut; ++j) {
    V y[kOut], o[kIn];
    const bool in_columns = !kBorder || j < columns.end;
    MTCKI_UNROLL for (int i = 0; i < kOut; ++i) {
      if (!kBorder || (in_columns && i < rows.end)) {
        y[i] = load(image + first + i * row_stride + j * kWidth);
      } else {
        y[i] = V{};
      }
    }
    output_adjoint(y, o);
    MTCKI_UNROLL for (int i = 0; i < kIn; ++i) t[i][j] = o[i];
  }
  MTCKI_UNROLL for (int i = 0; i < kIn; ++i) {
    V o[kIn];
    output_adjoint(t[i], o);
    MTCKI_UNROLL for (int j = 0; j < kIn; ++j) store(out + (i * kIn + j) * step, o[j]);
  }
}

// finish(A^T m A, offset) of one tile into the part of the 4x4 outputs that exists: at image +
// offset.
template <class F>
MTCKI_INLINE void output_tile(const float* m, int64_t step, const F& finish, float* image,
                              int64_t row_stride, int rows, int columns) {
  V t[kOut][kIn];
  MTCKI_UNROLL for (int j = 0; j < kIn; ++j) {
    V x[kIn], y[kOut];
    MTCKI_UNROLL for (int i = 0; i < kIn; ++i) x[i] = load(m + (i * kIn + j) * step);
    output_transform(x, y);
    MTCKI_UNROLL for (int i = 0; i < kOut; ++i) t[i][j] = y[i];
  }
  MTCKI_UNROLL for (int i = 0; i < kOut; ++i) {
    V y[kOut];
    output_transform(t[i], y);
    if (i >= rows) break;
    const int64_t out = i * row_stride;
    if (columns == kOut) {
      MTCKI_UNROLL for (int j = 0; j < kOut; ++j)
          store(image + out + j * kWidth, finish(y[j], out + j * kWidth));
    } else {
      MTCKI_UNROLL for (int j = 0; j < kOut; ++j) if (j < columns)
          store(image + out + j * kWidth, finish(y[j], out + j * kWidth));
    }
  }
}

}  // namespace mtcki::winograd

// Internal: the one-dimensional transforms of Winograd's minimal filtering (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", 2015) for three taps, and the two-dimensional ones
// that they make, applied to columns, then to rows. A scheme reads kRead pixels, kStep on from one
// tile to the next, and makes kWrite pixels from kPoints products with kWeights different values of
// the transformed taps:
//   y  = A^T [(G g) * (B^T d)]        the convolution
//   dg = G^T [(A dy) * (B^T d)]       its gradient with respect to the taps
#pragma once

#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/kernels.h"

namespace mtcki::winograd {

constexpr int kTaps = 3;
constexpr int kWeights = 6;  // values of transformed taps, in every scheme
using V = FloatVector;
constexpr int kWidth = Simd<float>::width;

#define MTCKI_INLINE inline __attribute__((always_inline))

// Stride 1, F(4,3) with points 0, 1, -1, 2, -2, infinity. The input gradient is the same with
// rotated taps.
struct Stride1 {
  static constexpr int kRead = 6, kStep = 4, kPoints = 6, kWrite = 4;
  static constexpr int kPlanes = kPoints * kPoints;
  // The transformed tap that point i multiplies.
  static constexpr int weight_of(int i) { return i; }
  // The points that multiply transformed tap i: [first(i), first(i) + uses(i)).
  static constexpr int uses(int) { return 1; }

  // v = B^T x.
  static MTCKI_INLINE void input(const V* x, V* v) {
    const V a = x[4] - 4.0f * x[2], b = x[3] - 4.0f * x[1];
    const V c = x[4] - x[2], d = 2.0f * (x[3] - x[1]);
    v[0] = 4.0f * x[0] + (x[4] - 5.0f * x[2]);
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + d;
    v[4] = c - d;
    v[5] = 4.0f * x[1] + (x[5] - 5.0f * x[3]);
  }

  // y = A^T m.
  static MTCKI_INLINE void output(const V* m, V* y) {
    const V s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + (s + s2);
    y[1] = d + 2.0f * d2;
    y[2] = s + 4.0f * s2;
    y[3] = (d + 8.0f * d2) + m[5];
  }

  // o = A y.
  static MTCKI_INLINE void output_adjoint(const V* y, V* o) {
    const V even = y[0] + y[2], odd = y[1] + y[3];
    const V even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
    o[0] = y[0];
    o[1] = even + odd;
    o[2] = even - odd;
    o[3] = even2 + odd2;
    o[4] = even2 - odd2;
    o[5] = y[3];
  }

  // u = G g.
  static MTCKI_INLINE void weights(const V* g, V* u) {
    const V outer = (1.0f / 6) * (g[0] + g[2]), middle = (1.0f / 6) * g[1];
    const V outer2 = (1.0f / 24) * g[0] + (1.0f / 6) * g[2], middle2 = (1.0f / 12) * g[1];
    u[0] = 0.25f * g[0];
    u[1] = -outer - middle;
    u[2] = middle - outer;
    u[3] = outer2 + middle2;
    u[4] = outer2 - middle2;
    u[5] = g[2];
  }

  // g = G^T u.
  static MTCKI_INLINE void weights_adjoint(const V* u, V* g) {
    const V s = (1.0f / 6) * (u[1] + u[2]), s2 = u[3] + u[4];
    g[0] = 0.25f * u[0] + ((1.0f / 24) * s2 - s);
    g[1] = (1.0f / 6) * (u[2] - u[1]) + (1.0f / 12) * (u[3] - u[4]);
    g[2] = ((1.0f / 6) * s2 - s) + u[5];
  }
};

// F(4,2) with points 0, 1, -1, 2, infinity: four outputs y[i] = d[i] g[0] + d[i + 1] g[1].
namespace two_taps {
MTCKI_INLINE void input(const V* d, V* v) {  // five values to five
  const V a = d[3] - d[1], b = d[3] - d[2];
  v[0] = 2.0f * (d[0] - d[2]) + a;
  v[1] = b - 2.0f * d[1];
  v[2] = b + 2.0f * (d[1] - d[2]);
  v[3] = a;
  v[4] = (d[4] - d[2]) - 2.0f * a;
}
MTCKI_INLINE void output(const V* m, V* y) {  // five to four
  const V s = m[1] + m[2], d = m[1] - m[2];
  y[0] = (m[0] + s) + m[3];
  y[1] = d + 2.0f * m[3];
  y[2] = s + 4.0f * m[3];
  y[3] = (d + 8.0f * m[3]) + m[4];
}
MTCKI_INLINE void output_adjoint(const V* y, V* o) {  // four to five
  const V even = y[0] + y[2], odd = y[1] + y[3];
  o[0] = y[0];
  o[1] = even + odd;
  o[2] = even - odd;
  o[3] = (y[0] + 4.0f * y[2]) + (2.0f * y[1] + 8.0f * y[3]);
  o[4] = y[3];
}
MTCKI_INLINE void weights(V g0, V g1, V* u) {  // two to five
  u[0] = 0.5f * g0;
  u[1] = -0.5f * (g0 + g1);
  u[2] = (1.0f / 6) * (g1 - g0);
  u[3] = (1.0f / 6) * g0 + (1.0f / 3) * g1;
  u[4] = g1;
}
MTCKI_INLINE void weights_adjoint(const V* u, V* g0, V* g1) {  // five to two
  const V a = 0.5f * u[1], b = (1.0f / 6) * u[2];
  *g0 = (0.5f * u[0] - a) + ((1.0f / 6) * u[3] - b);
  *g1 = (b - a) + ((1.0f / 3) * u[3] + u[4]);
}
}  // namespace two_taps

// Stride 2: of the nine pixels under four outputs, the even ones meet taps 0 and 2, which is
// F(4,2); the odd ones meet tap 1 alone and need no transform. Nine products for twelve, and only
// six different transformed taps: tap 1 serves four points.
struct Stride2 {
  static constexpr int kRead = 9, kStep = 8, kPoints = 9, kWrite = 4;
  static constexpr int kPlanes = kPoints * kPoints;
  static constexpr int weight_of(int i) { return i < 5 ? i : 5; }
  static constexpr int uses(int i) { return i < 5 ? 1 : 4; }

  static MTCKI_INLINE void input(const V* x, V* v) {
    const V even[] = {x[0], x[2], x[4], x[6], x[8]};
    two_taps::input(even, v);
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) v[5 + i] = x[2 * i + 1];
  }
  static MTCKI_INLINE void output(const V* m, V* y) {
    two_taps::output(m, y);
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) y[i] += m[5 + i];
  }
  static MTCKI_INLINE void output_adjoint(const V* y, V* o) {
    two_taps::output_adjoint(y, o);
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) o[5 + i] = y[i];
  }
  static MTCKI_INLINE void weights(const V* g, V* u) {
    two_taps::weights(g[0], g[2], u);
    u[5] = g[1];
  }
  static MTCKI_INLINE void weights_adjoint(const V* u, V* g) {
    two_taps::weights_adjoint(u, &g[0], &g[2]);
    g[1] = u[5];
  }
};

// The input gradient of stride 2 at padding 1, with rotated taps: even pixels get tap 1 of one
// pixel of the output's gradient, odd ones the outer taps of two neighbours.
struct Stride2Gradient {
  static constexpr int kRead = 5, kStep = 4, kPoints = 9, kWrite = 8;
  static constexpr int kPlanes = kPoints * kPoints;
  static constexpr int weight_of(int i) { return Stride2::weight_of(i); }

  static MTCKI_INLINE void input(const V* x, V* v) {
    two_taps::input(x, v);
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) v[5 + i] = x[i];
  }
  static MTCKI_INLINE void output(const V* m, V* y) {
    V odd[4];
    two_taps::output(m, odd);
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) y[2 * i] = m[5 + i];
    MTCKI_UNROLL for (int i = 0; i < 4; ++i) y[2 * i + 1] = odd[i];
  }
  static MTCKI_INLINE void weights(const V* g, V* u) { Stride2::weights(g, u); }
};

// Floats of one of the planes that hold a point each, for at least `size` of them: an odd number of
// cache lines, so that the planes, written at once, fall into different sets of the first-level
// cache.
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

// The n x tiles_h x tiles_w tiles of size x size outputs p x q.
struct Tiling {
  int64_t tiles_h, tiles_w;
  Tiling(int64_t p, int64_t q, int size)
      : tiles_h((p + size - 1) / size), tiles_w((q + size - 1) / size) {}
  int64_t per_image() const { return tiles_h * tiles_w; }
};
struct Tile {
  int64_t n, row, column;  // image, first pixel (may lie outside)
  Span rows, columns;      // inside the image
  bool inside;
};
// Places tiles [begin, end) of `size` pixels, `step` apart and shifted by the padding, in an image
// of h x w.
inline void place(const Tiling& g, int64_t begin, int64_t end, int size, int step, int64_t pad_h,
                  int64_t pad_w, int64_t h, int64_t w, Tile* out) {
  for (int64_t t = begin; t < end; ++t, ++out) {
    const int64_t r = t % g.per_image();
    out->n = t / g.per_image();
    out->row = r / g.tiles_w * step - pad_h;
    out->column = r % g.tiles_w * step - pad_w;
    out->rows = clip(out->row, size, h);
    out->columns = clip(out->column, size, w);
    out->inside = out->rows.all(size) && out->columns.all(size);
  }
}

// Asks for the kSize x kSize pixels of units [from, to) ahead of their use; units count `blocks`
// channel blocks from block0 on, tile by tile from `first`. The products between two transforms
// leave the memory system idle, and a tile's short rows defeat the hardware's prefetchers.
template <bool kWrite, int kSize, class T>
MTCKI_INLINE void prefetch(const T* data, int64_t channels, int64_t h, int64_t w, const Tiling& g,
                           int64_t first, int64_t block0, int64_t blocks, int64_t from,
                           int64_t to) {
  for (int64_t u = from; u < to; ++u) {
    const int64_t t = first + u / blocks, block = block0 + u % blocks;
    const int64_t n = t / g.per_image(), r = t % g.per_image();
    const int64_t row = r / g.tiles_w * kSize, column = r % g.tiles_w * kSize;
    const T* p = data + ((n * channels / kWidth + block) * h * w + row * w + column) * kWidth;
    const int64_t rows = kSize < h - row ? kSize : h - row;
    for (int64_t i = 0; i < rows; ++i, p += w * kWidth)
      for (int64_t line = 0; line < kSize * kWidth; line += 64 / sizeof(T))
        __builtin_prefetch(p + line, kWrite ? 1 : 0, 2);
  }
}

// How the pixels of a tile are seen: as they are, or through a ConvPrologue (for one vector of
// channels).
struct AsItIs {
  MTCKI_INLINE V operator()(V x) const { return x; }
};
struct Prologue {
  V offset, scale, shift;
  Prologue(const ConvPrologue& l, int64_t channel)
      : offset(load(l.offset + channel)),
        scale(load(l.scale + channel)),
        shift(load(l.shift + channel)) {}
  MTCKI_INLINE V operator()(V x) const {
    const V y = (x + offset) * scale + shift;
    return y < V{} ? V{} : y;
  }
};

// A tile of kFrom x kFrom pixels of one channel plane, seen through `prologue`, transformed from
// kFrom to kTo values along columns, then along rows; pixels outside are zero. out[point * step].
template <int kFrom, int kTo, bool kBorder, class T, class L, class F>
MTCKI_INLINE void tile_to_points(const T* image, const Tile& tile, int64_t row_stride, float* out,
                                 int64_t step, const L& prologue, const F& transform) {
  const Span rows = tile.rows, columns = tile.columns;
  const int64_t first = tile.row * row_stride + tile.column * kWidth;
  V t[kTo][kFrom];
  MTCKI_UNROLL for (int j = 0; j < kFrom; ++j) {
    V x[kFrom], v[kTo];
    const bool in_columns = !kBorder || (j >= columns.begin && j < columns.end);
    MTCKI_UNROLL for (int i = 0; i < kFrom; ++i) {
      if (!kBorder || (in_columns && i >= rows.begin && i < rows.end)) {
        x[i] = prologue(load(image + first + i * row_stride + j * kWidth));
      } else {
        x[i] = V{};
      }
    }
    transform(x, v);
    MTCKI_UNROLL for (int i = 0; i < kTo; ++i) t[i][j] = v[i];
  }
  MTCKI_UNROLL for (int i = 0; i < kTo; ++i) {
    V v[kTo];
    transform(t[i], v);
    MTCKI_UNROLL for (int j = 0; j < kTo; ++j) store(out + (i * kTo + j) * step, v[j]);
  }
}

// B^T d B of one tile of the input.
template <class S, bool kBorder, class T, class L>
MTCKI_INLINE void input_tile(const T* image, const Tile& tile, int64_t row_stride, float* out,
                             int64_t step, const L& prologue) {
  tile_to_points<S::kRead, S::kPoints, kBorder>(
      image, tile, row_stride, out, step, prologue,
      [](const V* x, V* v) __attribute__((always_inline)) { S::input(x, v); });
}

// All of these tiles of one block of channels, one after the other in `out`.
template <class S, class T>
void input_tiles(const T* x, int64_t channels, int64_t h, int64_t w, int64_t block,
                 const ConvPrologue& prologue, const std::vector<Tile>& tiles, float* out,
                 int64_t plane) {
  const auto all = [&](const auto& seen) {
    for (const Tile& tile : tiles) {
      const T* image = x + (tile.n * channels / kWidth + block) * h * w * kWidth;
      if (tile.inside) {
        input_tile<S, false>(image, tile, w * kWidth, out, plane, seen);
      } else {
        input_tile<S, true>(image, tile, w * kWidth, out, plane, seen);
      }
      out += kWidth;
    }
  };
  if (prologue.scale) {
    all(Prologue(prologue, block * kWidth));
  } else {
    all(AsItIs());
  }
}

// A dy A^T of one tile of the output's gradient.
template <class S, bool kBorder, class T>
MTCKI_INLINE void gradient_tile(const T* image, const Tile& tile, int64_t row_stride, float* out,
                                int64_t step) {
  tile_to_points<S::kWrite, S::kPoints, kBorder>(
      image, tile, row_stride, out, step, AsItIs(),
      [](const V* y, V* o) __attribute__((always_inline)) { S::output_adjoint(y, o); });
}

// finish(A^T m A, offset) of one tile into the part of its outputs that exists: at image + offset.
template <class S, class F, class T>
MTCKI_INLINE void output_tile(const float* m, int64_t step, const F& finish, T* image,
                              int64_t row_stride, int rows, int columns) {
  V t[S::kWrite][S::kPoints];
  MTCKI_UNROLL for (int j = 0; j < S::kPoints; ++j) {
    V x[S::kPoints], y[S::kWrite];
    MTCKI_UNROLL for (int i = 0; i < S::kPoints; ++i) x[i] = load(m + (i * S::kPoints + j) * step);
    S::output(x, y);
    MTCKI_UNROLL for (int i = 0; i < S::kWrite; ++i) t[i][j] = y[i];
  }
  MTCKI_UNROLL for (int i = 0; i < S::kWrite; ++i) {
    V y[S::kWrite];
    S::output(t[i], y);
    if (i >= rows) break;
    const int64_t out = i * row_stride;
    if (columns == S::kWrite) {
      MTCKI_UNROLL for (int j = 0; j < S::kWrite; ++j)
          store(image + out + j * kWidth, finish(y[j], out + j * kWidth));
    } else {
      MTCKI_UNROLL for (int j = 0; j < S::kWrite; ++j) if (j < columns)
          store(image + out + j * kWidth, finish(y[j], out + j * kWidth));
    }
  }
}

}  // namespace mtcki::winograd

// Winograd weight gradient: dW = G^T [ sum over tiles (B^T x B) * (A gy A^T) ] G.
//
// A chunk of tiles is transformed to V[plane][tile][c] and Y[plane][tile][k], planes being pairs of
// points; per rectangle of channels 36 products over the chunk's tiles (and over the planes that
// meet the same transformed tap) go into a local M and, transformed back, are added to dW. So M is
// never stored as a whole, and f32 sums are short: one chunk, then chunk by chunk.
//
// Few channels: every thread has its own tiles and its own dW, added up at the end in thread order.
// Many: all threads transform one chunk together, and each owns rectangles of dW.
#include <algorithm>
#include <vector>

#include "tensor/ops/conv/kernels.h"
#include "tensor/ops/conv/winograd_transform.h"
#include "tensor/parallel.h"

namespace mtcki::conv_winograd {

namespace {

using namespace winograd;  // NOLINT: the transforms are this file's vocabulary

constexpr int kRows = kWidth / 2;   // input channels in registers: half a block
constexpr int kVectors = 3;         // vectors of output channels in registers
constexpr int64_t kRectangle = 32;  // input channels of one local M
constexpr int kColumns = kVectors * kWidth;

constexpr int kMatrices = kWeights * kWeights;

struct Chunk {
  const ConvProblem& d;
  int64_t tiles;  // that fit
  float *v, *y;   // [plane][c / B][tiles][B], [plane][k / B][tiles][B]
  ConvPrologue prologue;
  int64_t v_plane() const { return plane_size(tiles * d.c); }
  int64_t y_plane() const { return plane_size(tiles * d.k); }
  template <class S>
  static size_t bytes(int64_t channels, int64_t tiles) {
    return static_cast<size_t>(S::kPlanes * plane_size(tiles * channels)) * sizeof(float);
  }
};

// m[kRows][KV vectors] (row distance kColumns) = sum over rows x columns planes, and over tiles, of
// v[t][kRows] y[KV][t][vector].
template <class S, int KV>
void product(const Chunk& chunk, int64_t tiles, int rows, int columns, const float* v,
             const float* y, float* m) {
  const int64_t y_block = chunk.tiles * kWidth;
  const int64_t v_plane = chunk.v_plane(), y_plane = chunk.y_plane();
  V acc[kRows][KV];
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] =
      V{};
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) {
      const float* vt = v + (i * S::kPoints + j) * v_plane;
      const float* yt = y + (i * S::kPoints + j) * y_plane;
      for (int64_t t = 0; t < tiles; ++t, vt += kWidth, yt += kWidth) {
        V yv[KV];
        MTCKI_UNROLL for (int k = 0; k < KV; ++k) yv[k] = load_once(yt + k * y_block);
        MTCKI_UNROLL for (int r = 0; r < kRows; ++r) {
          const V x = broadcast(vt[r]);
          MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] += x * yv[k];
        }
      }
    }
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k)
      store(m + r * kColumns + k * kWidth, acc[r][k]);
}

// Tiles [begin, end) into places [at, ...) of the chunk.
template <class S, class T>
void transform(const Chunk& chunk, const T* x, const T* gy, int64_t begin, int64_t end,
               int64_t at) {
  const ConvProblem& d = chunk.d;
  const Tiling tiling(d.p, d.q, S::kWrite);
  std::vector<Tile> tiles(static_cast<size_t>(end - begin));
  place(tiling, begin, end, S::kRead, S::kStep, d.pad_h, d.pad_w, d.h, d.w, tiles.data());
  for (int64_t b = 0; b < d.c / kWidth; ++b)
    input_tiles<S>(x, d.c, d.h, d.w, b, chunk.prologue, tiles,
                   chunk.v + (b * chunk.tiles + at) * kWidth, chunk.v_plane());
  place(tiling, begin, end, S::kWrite, S::kWrite, 0, 0, d.p, d.q, tiles.data());
  for (int64_t b = 0; b < d.k / kWidth; ++b) {
    float* out = chunk.y + (b * chunk.tiles + at) * kWidth;
    for (const Tile& tile : tiles) {
      const T* image = gy + (tile.n * d.k / kWidth + b) * d.p * d.q * kWidth;
      if (tile.inside) {
        gradient_tile<S, false>(image, tile, d.q * kWidth, out, chunk.y_plane());
      } else {
        gradient_tile<S, true>(image, tile, d.q * kWidth, out, chunk.y_plane());
      }
      out += kWidth;
    }
  }
}

// Tiles whose pixels are to be prefetched during `steps` further products.
template <class T>
struct Ahead {
  const T *x = nullptr, *gy = nullptr;
  int64_t begin = 0, end = 0, step = 0, steps = 1;
  template <class S>
  void advance(const ConvProblem& d) {
    const Tiling tiling(d.p, d.q, S::kWrite);
    const int64_t x_blocks = d.c / kWidth, gy_blocks = d.k / kWidth, tiles = end - begin;
    const auto share = [&](int64_t units, int64_t at) { return units * at / steps; };
    prefetch<false, S::kStep>(x, d.c, d.h, d.w, tiling, begin, 0, x_blocks,
                              share(tiles * x_blocks, step), share(tiles * x_blocks, step + 1));
    prefetch<false, S::kWrite>(gy, d.k, d.p, d.q, tiling, begin, 0, gy_blocks,
                               share(tiles * gy_blocks, step), share(tiles * gy_blocks, step + 1));
    ++step;
  }
};

// The chunk's share of dW[9][c][k] for input channels [c0, c1) and KV vectors of k from k0 on:
// stored by the first chunk, added by the others.
template <class S, int KV, class T>
void accumulate(const Chunk& chunk, int64_t tiles, bool first_chunk, int64_t c0, int64_t c1,
                int64_t k0, float* m, float* dw, Ahead<T>& ahead) {
  const ConvProblem& d = chunk.d;
  const int64_t channels = c1 - c0, plane = plane_size(channels * kColumns);
  for (int i = 0; i < kWeights; ++i)
    for (int j = 0; j < kWeights; ++j) {
      ahead.template advance<S>(d);
      const int first = i * S::kPoints + j;  // plane; a transformed tap's points follow each other
      const float* v = chunk.v + first * chunk.v_plane();
      const float* y = chunk.y + first * chunk.y_plane() + k0 * chunk.tiles;
      for (int64_t c = c0; c < c1; c += kRows)
        product<S, KV>(chunk, tiles, S::uses(i), S::uses(j),
                       v + c / kWidth * kWidth * chunk.tiles + c % kWidth, y,
                       m + (i * kWeights + j) * plane + (c - c0) * kColumns);
    }
  for (int64_t c = 0; c < channels; ++c)
    for (int v = 0; v < KV; ++v) {
      const float* from = m + c * kColumns + v * kWidth;
      V rows[kTaps][kWeights];
      MTCKI_UNROLL for (int j = 0; j < kWeights; ++j) {
        V x[kWeights], g[kTaps];
        MTCKI_UNROLL for (int i = 0; i < kWeights; ++i) x[i] =
            load(from + (i * kWeights + j) * plane);
        S::weights_adjoint(x, g);
        MTCKI_UNROLL for (int i = 0; i < kTaps; ++i) rows[i][j] = g[i];
      }
      MTCKI_UNROLL for (int i = 0; i < kTaps; ++i) {
        V g[kTaps];
        S::weights_adjoint(rows[i], g);
        MTCKI_UNROLL for (int j = 0; j < kTaps; ++j) {
          float* out = dw + ((i * kTaps + j) * d.c + c0 + c) * d.k + k0 + v * kWidth;
          store(out, first_chunk ? g[j] : load(out) + g[j]);
        }
      }
    }
}

// The widths of output channels: near-equal shares of at most kVectors vectors.
struct Columns {
  explicit Columns(int64_t k) : vectors(k / kWidth), shares((vectors + kVectors - 1) / kVectors) {}
  int64_t begin(int64_t share) const { return vectors * share / shares; }
  int64_t vectors, shares;
};

template <class S, class T>
void accumulate_share(const Chunk& chunk, int64_t tiles, bool first_chunk, int64_t c0,
                      const Columns& columns, int64_t share, float* m, float* dw, Ahead<T>& ahead) {
  const int64_t k0 = columns.begin(share), count = columns.begin(share + 1) - k0;
  const int64_t c1 = std::min(chunk.d.c, c0 + kRectangle);
  const auto run = count == 3   ? accumulate<S, 3, T>
                   : count == 2 ? accumulate<S, 2, T>
                                : accumulate<S, 1, T>;
  run(chunk, tiles, first_chunk, c0, c1, k0 * kWidth, m, dw, ahead);
}

// gw[k][c][9] = sum over parts of dw[part][9][c][k]. Goes through squares of channels, so that both
// sides are read and written in runs: element by element it would cost as much as all the products.
void collect(const ConvProblem& d, const float* dw, int64_t parts, float* gw) {
  constexpr int kTapCount = kTaps * kTaps;
  const int64_t size = kTapCount * d.c * d.k;
  parallel_for(d.k / kWidth, 1, [&](int64_t begin, int64_t end) {
    alignas(64) float square[kWidth * kTapCount][kWidth];  // [c][tap][k]
    for (int64_t k = begin * kWidth; k < end * kWidth; k += kWidth)
      for (int64_t c = 0; c < d.c; c += kWidth) {
        for (int i = 0; i < kWidth; ++i)
          for (int t = 0; t < kTapCount; ++t) {
            const float* from = dw + (t * d.c + c + i) * d.k + k;
            V sum = load(from);
            for (int64_t p = 1; p < parts; ++p) sum += load(from + p * size);
            store(square[i * kTapCount + t], sum);
          }
        for (int lane = 0; lane < kWidth; ++lane) {
          float* to = gw + ((k + lane) * d.c + c) * kTapCount;
          for (int i = 0; i < kWidth * kTapCount; ++i) to[i] = square[i][lane];
        }
      }
  });
}

constexpr size_t kLocal = kMatrices * (kRectangle * kColumns + 16) * sizeof(float);

template <class S, class T>
void split_tiles(const ConvProblem& d, int64_t tiles, const T* gy, const T* x,
                 const ConvPrologue& prologue, float* gw) {
  const int64_t threads = std::min<int64_t>(num_threads(), tiles), size = 9 * d.c * d.k;
  // Long enough to pay for the transform back; V and Y stay in the second-level cache.
  constexpr int64_t most = S::kPlanes == 36 ? 80 : 32;
  const int64_t fit = (int64_t{900} << 10) / (S::kPlanes * 4 * (d.c + d.k));
  const int64_t block = std::clamp<int64_t>(fit, 16, most);
  const Columns columns(d.k);
  const int64_t rectangles =
      (d.c + kRectangle - 1) / kRectangle * columns.shares * static_cast<int64_t>(kMatrices);
  Scratch parts(static_cast<size_t>(threads * size) * sizeof(float));
  parallel_for(threads, 1, [&](int64_t first, int64_t last) {
    Scratch v(Chunk::bytes<S>(d.c, block)), y(Chunk::bytes<S>(d.k, block)), m(kLocal);
    const Chunk chunk{d, block, v.as(), y.as(), prologue};
    for (int64_t part = first; part < last; ++part) {
      float* dw = parts.as() + part * size;
      const int64_t begin = tiles * part / threads, end = tiles * (part + 1) / threads;
      for (int64_t t = begin; t < end; t += block) {
        const int64_t stop = std::min(end, t + block);
        transform<S>(chunk, x, gy, t, stop, 0);
        Ahead<T> ahead{x, gy, stop, std::min(end, stop + block), 0, rectangles};
        for (int64_t c = 0; c < d.c; c += kRectangle)
          for (int64_t share = 0; share < columns.shares; ++share)
            accumulate_share<S>(chunk, stop - t, t == begin, c, columns, share, m.as(), dw, ahead);
      }
    }
  });
  collect(d, parts.as(), threads, gw);
}

template <class S, class T>
void split_channels(const ConvProblem& d, int64_t tiles, const T* gy, const T* x,
                    const ConvPrologue& prologue, float* gw) {
  // The chunk stays in the third-level cache.
  const int64_t fit = std::max<int64_t>(1, (int64_t{12} << 20) / (S::kPlanes * 4 * (d.c + d.k)));
  const int64_t blocks = (tiles + fit - 1) / fit;
  const int64_t block = (tiles + blocks - 1) / blocks;
  const int64_t rectangles_c = (d.c + kRectangle - 1) / kRectangle;
  const Columns columns(d.k);
  Scratch v(Chunk::bytes<S>(d.c, block)), y(Chunk::bytes<S>(d.k, block));
  Scratch dw(static_cast<size_t>(9 * d.c * d.k) * sizeof(float));
  const Chunk chunk{d, block, v.as(), y.as(), prologue};
  for (int64_t t = 0; t < tiles; t += block) {
    const int64_t stop = std::min(tiles, t + block);
    parallel_for(stop - t, 1, [&](int64_t begin, int64_t end) {
      transform<S>(chunk, x, gy, t + begin, t + end, begin);
    });
    parallel_for(rectangles_c * columns.shares, 1, [&](int64_t begin, int64_t end) {
      Scratch m(kLocal);
      Ahead<T> ahead;
      for (int64_t i = begin; i < end; ++i) {
        accumulate_share<S>(chunk, stop - t, t == 0, i / columns.shares * kRectangle, columns,
                            i % columns.shares, m.as(), dw.as(), ahead);
      }
    });
  }
  collect(d, dw.as(), 1, gw);
}

template <class S, class T>
void run(const ConvProblem& d, const T* gy, const T* x, const ConvPrologue& prologue, float* gw) {
  const int64_t tiles = d.n * Tiling(d.p, d.q, S::kWrite).per_image();
  const bool many = d.c * d.k >= 192 * 192;
  (many ? split_channels<S, T> : split_tiles<S, T>)(d, tiles, gy, x, prologue, gw);
}

template <class T>
void grad_weight(const ConvProblem& d, const T* gy, const T* x, const ConvPrologue& prologue,
                 float* gw) {
  (d.stride_h == 1 ? run<Stride1, T> : run<Stride2, T>)(d, gy, x, prologue, gw);
}

}  // namespace

template <class T>
void grad_weight(const ConvProblem& d, const T* gy, const T* x, float* gw) {
  grad_weight(d, gy, x, {}, gw);
}

void grad_weight_from(const ConvProblem& d, const float* gy, const float* x,
                      const ConvPrologue& prologue, float* gw) {
  grad_weight(d, gy, x, prologue, gw);
}

template void grad_weight(const ConvProblem&, const float*, const float*, float*);
template void grad_weight(const ConvProblem&, const bfloat16*, const bfloat16*, float*);

}  // namespace mtcki::conv_winograd

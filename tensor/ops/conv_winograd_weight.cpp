// Winograd weight gradient: dW = G^T [ sum over tiles (B^T x B) * (A gy A^T) ] G.
//
// A chunk of tiles is transformed to V[36][tile][c] and Y[36][tile][k]; per rectangle of channels
// 36 products over the chunk's tiles go into a local M and, transformed back, are added to dW. So
// the 36-point M is never stored as a whole, and f32 sums are short: one chunk, then chunk by
// chunk.
//
// Few channels: every thread has its own tiles and its own dW, added up at the end in thread order.
// Many: all threads transform one chunk together, and each owns rectangles of dW.
#include <algorithm>
#include <utility>
#include <vector>

#include "tensor/ops/conv_kernels.h"
#include "tensor/ops/winograd_transform.h"
#include "tensor/parallel.h"

namespace mtcki::conv_winograd {

namespace {

using namespace winograd;  // NOLINT: the transforms are this file's vocabulary

constexpr int kRows = kWidth / 2;   // input channels in registers: half a block
constexpr int kVectors = 3;         // vectors of output channels in registers
constexpr int64_t kRectangle = 32;  // input channels of one local M
constexpr int kColumns = kVectors * kWidth;

struct Chunk {
  const ConvProblem& d;
  int64_t tiles;  // that fit
  float *v, *y;   // [36][c / B][tiles][B], [36][k / B][tiles][B]
  int64_t v_plane() const { return plane_size(tiles * d.c); }
  int64_t y_plane() const { return plane_size(tiles * d.k); }
  static size_t bytes(int64_t channels, int64_t tiles) {
    return static_cast<size_t>(kPoints * plane_size(tiles * channels)) * sizeof(float);
  }
};

// m[kRows][KV vectors] (row distance kColumns) = sum over tiles of v[t][kRows] y[KV][t][vector].
template <int KV>
void product(int64_t tiles, const float* v, const float* y, int64_t y_block, float* m) {
  V acc[kRows][KV];
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] =
      V{};
  for (int64_t t = 0; t < tiles; ++t, v += kWidth, y += kWidth) {
    V yv[KV];
    MTCKI_UNROLL for (int k = 0; k < KV; ++k) yv[k] = load_once(y + k * y_block);
    MTCKI_UNROLL for (int r = 0; r < kRows; ++r) {
      const V x = broadcast(v[r]);
      MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] += x * yv[k];
    }
  }
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k)
      store(m + r * kColumns + k * kWidth, acc[r][k]);
}

// Tiles [begin, end) into places [at, ...) of the chunk.
void transform(const Chunk& chunk, const float* x, const float* gy, int64_t begin, int64_t end,
               int64_t at) {
  const ConvProblem& d = chunk.d;
  const Tiling tiling(d.p, d.q);
  std::vector<Tile> tiles(static_cast<size_t>(end - begin));
  place(tiling, begin, end, kIn, d.pad_h, d.pad_w, d.h, d.w, tiles.data());
  for (int64_t b = 0; b < d.c / kWidth; ++b) {
    float* out = chunk.v + (b * chunk.tiles + at) * kWidth;
    for (const Tile& tile : tiles) {
      const float* image = x + (tile.n * d.c / kWidth + b) * d.h * d.w * kWidth;
      if (tile.inside) {
        input_tile<false>(image, tile, d.w * kWidth, out, chunk.v_plane());
      } else {
        input_tile<true>(image, tile, d.w * kWidth, out, chunk.v_plane());
      }
      out += kWidth;
    }
  }
  place(tiling, begin, end, kOut, 0, 0, d.p, d.q, tiles.data());
  for (int64_t b = 0; b < d.k / kWidth; ++b) {
    float* out = chunk.y + (b * chunk.tiles + at) * kWidth;
    for (const Tile& tile : tiles) {
      const float* image = gy + (tile.n * d.k / kWidth + b) * d.p * d.q * kWidth;
      if (tile.inside) {
        gradient_tile<false>(image, tile, d.q * kWidth, out, chunk.y_plane());
      } else {
        gradient_tile<true>(image, tile, d.q * kWidth, out, chunk.y_plane());
      }
      out += kWidth;
    }
  }
}

// Tiles whose pixels are to be prefetched during `steps` further products.
struct Ahead {
  const float *x = nullptr, *gy = nullptr;
  int64_t begin = 0, end = 0, step = 0, steps = 1;
  void advance(const ConvProblem& d) {
    const Tiling tiling(d.p, d.q);
    const int64_t x_blocks = d.c / kWidth, gy_blocks = d.k / kWidth, tiles = end - begin;
    const auto share = [&](int64_t units, int64_t at) { return units * at / steps; };
    prefetch<false>(x, d.c, d.h, d.w, tiling, begin, 0, x_blocks, share(tiles * x_blocks, step),
                    share(tiles * x_blocks, step + 1));
    prefetch<false>(gy, d.k, d.p, d.q, tiling, begin, 0, gy_blocks, share(tiles * gy_blocks, step),
                    share(tiles * gy_blocks, step + 1));
    ++step;
  }
};

// Adds the chunk's share of dW[9][c][k] for input channels [c0, c1) and KV vectors of k from k0 on.
template <int KV>
void accumulate(const Chunk& chunk, int64_t tiles, int64_t c0, int64_t c1, int64_t k0, float* m,
                float* dw, Ahead& ahead) {
  const ConvProblem& d = chunk.d;
  const int64_t channels = c1 - c0, plane = plane_size(channels * kColumns);
  for (int point = 0; point < kPoints; ++point) {
    ahead.advance(d);
    const float* v = chunk.v + point * chunk.v_plane();
    const float* y = chunk.y + point * chunk.y_plane() + k0 * chunk.tiles;
    for (int64_t c = c0; c < c1; c += kRows)
      product<KV>(tiles, v + c / kWidth * kWidth * chunk.tiles + c % kWidth, y,
                  chunk.tiles * kWidth, m + point * plane + (c - c0) * kColumns);
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

// The widths of output channels: near-equal shares of at most kVectors vectors.
struct Columns {
  explicit Columns(int64_t k) : vectors(k / kWidth), shares((vectors + kVectors - 1) / kVectors) {}
  int64_t begin(int64_t share) const { return vectors * share / shares; }
  int64_t vectors, shares;
};

void accumulate(const Chunk& chunk, int64_t tiles, int64_t c0, const Columns& columns,
                int64_t share, float* m, float* dw, Ahead& ahead) {
  const int64_t k0 = columns.begin(share), count = columns.begin(share + 1) - k0;
  const int64_t c1 = std::min(chunk.d.c, c0 + kRectangle);
  const auto run = count == 3 ? accumulate<3> : count == 2 ? accumulate<2> : accumulate<1>;
  run(chunk, tiles, c0, c1, k0 * kWidth, m, dw, ahead);
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
  constexpr int64_t block =
      80;  // long enough to pay for the transform back, small enough for caches
  const Columns columns(d.k);
  const int64_t rectangles =
      (d.c + kRectangle - 1) / kRectangle * columns.shares * static_cast<int64_t>(kPoints);
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
        transform(chunk, x, gy, t, stop, 0);
        Ahead ahead{x, gy, stop, std::min(end, stop + block), 0, rectangles};
        for (int64_t c = 0; c < d.c; c += kRectangle)
          for (int64_t share = 0; share < columns.shares; ++share)
            accumulate(chunk, stop - t, c, columns, share, m.as(), dw, ahead);
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
  const Columns columns(d.k);
  Scratch v(Chunk::bytes(d.c, block)), y(Chunk::bytes(d.k, block));
  Scratch dw(static_cast<size_t>(9 * d.c * d.k) * sizeof(float));
  const Chunk chunk{d, block, v.as(), y.as()};
  parallel_for(9 * d.c * d.k, 1 << 16, [&](int64_t begin, int64_t end) {
    std::fill(dw.as() + begin, dw.as() + end, 0.0f);
  });
  for (int64_t t = 0; t < tiles; t += block) {
    const int64_t stop = std::min(tiles, t + block);
    parallel_for(stop - t, 1, [&](int64_t begin, int64_t end) {
      transform(chunk, x, gy, t + begin, t + end, begin);
    });
    parallel_for(rectangles_c * columns.shares, 1, [&](int64_t begin, int64_t end) {
      Scratch m(kLocal);
      Ahead ahead;
      for (int64_t i = begin; i < end; ++i) {
        accumulate(chunk, stop - t, i / columns.shares * kRectangle, columns, i % columns.shares,
                   m.as(), dw.as(), ahead);
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

// Winograd's minimal filtering for 3x3 kernels at stride 1 and 2, forward and input gradient (at
// stride 1 the same with transposed, rotated weights).
//
// Per block of tiles: input transform V[plane][c / B][tile][B], planes being pairs of points; then
// per group of output channels one small product per plane, M[plane][tile][k vectors] = V U, and
// the output transform. A block's V stays in the second-level cache and M never becomes larger than
// one group, so that the blow-up of the transformed data (36 / 16 at stride 1, 81 values for 64
// pixels and 16 outputs at stride 2) costs no memory traffic.
//
// Two ways to share the work. Few channels: every thread takes its own tiles, the transformed
// weights U are made once and shared. Many channels (U larger than the caches): all threads work on
// the same tiles, each for its own output channels, and makes only the U that it uses, group by
// group.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "tensor/kernels/transpose.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/ops/conv/winograd_transform.h"
#include "tensor/parallel.h"

namespace mtcki::conv_winograd {

namespace {

using namespace winograd;  // NOLINT: the transforms are this file's vocabulary

constexpr int kTileRows = kSimdRegisters == 32 ? 14 : 6;  // tiles in registers
constexpr int kGroup = 2 * kWidth;                        // output channels in registers

// One of the two directions: `in` and `out` channels, weights addressed as w[o*out_step +
// i*in_step].
struct Direction {
  int64_t n, in, out, h, w, p, q, pad_h, pad_w;
  int64_t out_step, in_step;
  bool rotate;
  ConvEpilogue epilogue;
  ConvPrologue prologue;
  // Floats of one matrix of a group's transformed weights.
  int64_t matrix() const { return plane_size(in * kGroup); }
  int64_t groups() const { return (out + kGroup - 1) / kGroup; }
  int64_t group_width(int64_t g) const { return std::min<int64_t>(kGroup, out - g * kGroup); }
};

template <class S>
Tiling tiling(const Direction& d) {
  return {d.p, d.q, S::kWrite};
}
constexpr int kMatrices = kWeights * kWeights;  // of transformed weights
template <class S>
int matrix_of(int plane) {
  return S::weight_of(plane / S::kPoints) * kWeights + S::weight_of(plane % S::kPoints);
}

// Transformed input of up to `tiles` tiles from `first` on.
struct Block {
  float* v;
  int64_t first, tiles, channels;
  int64_t channel_block() const { return tiles * kWidth; }  // distance of two blocks of channels
  int64_t plane() const { return plane_size(tiles * channels); }
  template <class S>
  static size_t bytes(int64_t tiles, int64_t channels) {
    return static_cast<size_t>(S::kPlanes * plane_size(tiles * channels)) * sizeof(float);
  }
};
template <class S>
size_t m_bytes(int64_t tiles) {
  return static_cast<size_t>(S::kPlanes * plane_size(tiles * kGroup)) * sizeof(float);
}

// m[R][KV vectors] = v[R][depth] u[depth][KV vectors]; v's channels come in blocks.
template <int R, int KV>
void product(int64_t depth, const float* v, int64_t channel_block, const float* u, float* m) {
  V acc[R][KV];
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] =
      V{};
  for (int64_t b = 0; b < depth; b += kWidth, v += channel_block, u += kWidth * KV * kWidth) {
    MTCKI_UNROLL for (int c = 0; c < kWidth; ++c) {
      V uv[KV];
      MTCKI_UNROLL for (int k = 0; k < KV; ++k) uv[k] = load(u + (c * KV + k) * kWidth);
      MTCKI_UNROLL for (int r = 0; r < R; ++r) {
        const V x = broadcast(v[r * kWidth + c]);
        MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] += x * uv[k];
      }
    }
  }
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k)
      store(m + (r * KV + k) * kWidth, acc[r][k]);
}

using Product = void (*)(int64_t, const float*, int64_t, const float*, float*);
template <int KV, int... R>
Product pick(int rows, std::integer_sequence<int, R...>) {
  static constexpr Product table[] = {product<R + 1, KV>...};
  return table[rows - 1];
}
template <int KV>
Product pick(int64_t rows) {
  return pick<KV>(static_cast<int>(rows), std::make_integer_sequence<int, kTileRows>());
}

// The taps of kWidth input channels from i on for lanes of output channels, [in][tap][lane]:
// vectors along the output channel, which is far apart in w.
template <int KV>
void gather_taps(const Direction& d, const float* w, int64_t first, int64_t i, float* taps) {
  constexpr int kLanes = KV * kWidth, kAll = kTaps * kTaps;
  if constexpr (kWidth == 16) {
    const void* rows[16];
    for (int v = 0; v < KV; ++v) {
      const float* from = w + (first + v * 16) * d.out_step + i * d.in_step;
      if (d.in_step == kAll) {  // the taps of all input channels follow each other
        for (int64_t j = 0; j < 16 * kAll; j += 16) {
          for (int o = 0; o < 16; ++o) rows[o] = from + o * d.out_step + j;
          transpose_square<16>(rows, taps + j * kLanes + v * 16, kLanes);
        }
      } else {
        for (int64_t c = 0; c < 16; ++c, from += d.in_step) {
          float last[16] = {};  // w may end behind the taps of the last row
          std::copy_n(from + 15 * d.out_step, kAll, last);
          for (int o = 0; o < 15; ++o) rows[o] = from + o * d.out_step;
          rows[15] = last;
          transpose_square<16>(rows, taps + c * kAll * kLanes + v * 16, kLanes, kAll);
        }
      }
    }
  } else {
    for (int64_t c = 0; c < kWidth; ++c)
      for (int o = 0; o < kLanes; ++o) {
        const float* from = w + (first + o) * d.out_step + (i + c) * d.in_step;
        MTCKI_UNROLL for (int t = 0; t < kAll; ++t) taps[(c * kAll + t) * kLanes + o] = from[t];
      }
  }
}

// U of one output group: [matrix][in][width].
template <class S, int KV>
void transform_weights(const Direction& d, const float* w, int64_t first, float* u) {
  constexpr int kLanes = KV * kWidth, kAll = kTaps * kTaps;
  alignas(64) float some[kWidth * kAll * kLanes];
  for (int64_t i = 0; i < d.in; ++i) {
    if (i % kWidth == 0) gather_taps<KV>(d, w, first, i, some);
    const float* taps = some + i % kWidth * kAll * kLanes;
    for (int v = 0; v < KV; ++v) {
      V rows[kWeights][kTaps];
      MTCKI_UNROLL for (int j = 0; j < kTaps; ++j) {
        V g[kTaps], x[kWeights];
        MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) g[t] = load(
            taps + (d.rotate ? kAll - 1 - (t * kTaps + j) : t * kTaps + j) * kLanes + v * kWidth);
        S::weights(g, x);
        MTCKI_UNROLL for (int t = 0; t < kWeights; ++t) rows[t][j] = x[t];
      }
      MTCKI_UNROLL for (int t = 0; t < kWeights; ++t) {
        V x[kWeights];
        S::weights(rows[t], x);
        MTCKI_UNROLL for (int j = 0; j < kWeights; ++j)
            store(u + (t * kWeights + j) * d.matrix() + i * kLanes + v * kWidth, x[j]);
      }
    }
  }
}

template <class S>
void transform_group(const Direction& d, const float* w, int64_t group, float* u) {
  if (d.group_width(group) == kGroup) {
    transform_weights<S, 2>(d, w, group * kGroup, u);
  } else {
    transform_weights<S, 1>(d, w, group * kGroup, u);
  }
}

// Tiles [begin, end) of x into the block.
template <class S, class T>
void transform_input(const Direction& d, const T* x, int64_t begin, int64_t end,
                     const Block& block) {
  std::vector<Tile> tiles(static_cast<size_t>(end - begin));
  place(tiling<S>(d), begin, end, S::kRead, S::kStep, d.pad_h, d.pad_w, d.h, d.w, tiles.data());
  for (int64_t b = 0; b < d.in / kWidth; ++b)
    input_tiles<S>(x, d.in, d.h, d.w, b, d.prologue, tiles,
                   block.v + b * block.channel_block() + (begin - block.first) * kWidth,
                   block.plane());
}

// Tiles whose input is to be prefetched meanwhile.
template <class T>
struct Ahead {
  const T* x = nullptr;
  int64_t begin = 0, end = 0;
};

// All of a ConvEpilogue for one vector of channels of a tile that starts at y[at].
struct Finish {
  V bias, scale, shift, least;
  const float* residual;
  Finish(const ConvEpilogue& t, V add, int64_t channel, int64_t at)
      : bias(add),
        scale(t.scale ? load(t.scale + channel) : broadcast(1.0f)),
        shift(t.scale ? load(t.shift + channel) : V{}),
        least(broadcast(t.relu ? 0.0f : -std::numeric_limits<float>::infinity())),
        residual(t.residual ? t.residual + at : nullptr) {}
  MTCKI_INLINE V operator()(V sum, int64_t offset) const {
    V v = (sum + bias) * scale + shift;
    if (residual) v += load(residual + offset);
    return v < least ? least : v;
  }
};

// One output group for tiles [begin, end) that are in the block: products, then output transform.
template <class S, int KV, class T>
void outputs(const Direction& d, const Block& block, const float* u, float* m, int64_t begin,
             int64_t end, int64_t group, T* y, const Ahead<T>& ahead) {
  constexpr int64_t kLanes = KV * kWidth;
  const int64_t count = end - begin, m_plane = plane_size(count * kLanes);
  const int64_t in_blocks = d.in / kWidth, units = (ahead.end - ahead.begin) * in_blocks;
  const Tiling g = tiling<S>(d);
  const ConvEpilogue& epilogue = d.epilogue;
  constexpr int64_t planes = S::kPlanes;
  for (int plane = 0; plane < planes; ++plane) {
    prefetch<true, S::kWrite>(y, d.out, d.p, d.q, g, begin, group * 2, KV,
                              count * KV * plane / planes, count * KV * (plane + 1) / planes);
    const int64_t step = group * planes + plane, steps = d.groups() * planes;
    prefetch<false, S::kStep>(ahead.x, d.in, d.h, d.w, g, ahead.begin, 0, in_blocks,
                              units * step / steps, units * (step + 1) / steps);
    const float* uu = u + matrix_of<S>(plane) * d.matrix();
    const float* vv = block.v + plane * block.plane() + (begin - block.first) * kWidth;
    float* mm = m + plane * m_plane;
    int64_t t = 0;
    for (; t + kTileRows <= count; t += kTileRows)
      product<kTileRows, KV>(d.in, vv + t * kWidth, block.channel_block(), uu, mm + t * kLanes);
    if (t < count)
      pick<KV>(count - t)(d.in, vv + t * kWidth, block.channel_block(), uu, mm + t * kLanes);
  }
  for (int64_t t = begin; t < end; ++t) {
    const int64_t n = t / g.per_image(), r = t % g.per_image();
    const int64_t row = r / g.tiles_w * S::kWrite, column = r % g.tiles_w * S::kWrite;
    const int rows = static_cast<int>(std::min<int64_t>(S::kWrite, d.p - row));
    const int columns = static_cast<int>(std::min<int64_t>(S::kWrite, d.q - column));
    for (int k = 0; k < KV; ++k) {
      const int64_t channel = group * kGroup + k * kWidth;
      const V bias = epilogue.bias ? load(epilogue.bias + channel) : V{};
      const int64_t at = (n * d.out + channel) * d.p * d.q + (row * d.q + column) * kWidth;
      const auto store_tile = [&](const auto& finish) __attribute__((always_inline)) {
        output_tile<S>(m + (t - begin) * kLanes + k * kWidth, m_plane, finish, y + at, d.q * kWidth,
                       rows, columns);
      };
      if (epilogue.only_bias()) {
        store_tile([bias](V sum, int64_t) { return sum + bias; });
      } else {
        store_tile(Finish(epilogue, bias, channel, at));
      }
    }
  }
}

template <class S, class T>
void group_outputs(const Direction& d, const Block& block, const float* u, float* m, int64_t begin,
                   int64_t end, int64_t group, T* y, const Ahead<T>& ahead) {
  if (d.group_width(group) == kGroup) {
    outputs<S, 2>(d, block, u, m, begin, end, group, y, ahead);
  } else {
    outputs<S, 1>(d, block, u, m, begin, end, group, y, ahead);
  }
}

// Every thread has its own tiles.
template <class S, class T>
void split_tiles(const Direction& d, const T* x, const float* w, T* y) {
  const int64_t u_group = kMatrices * d.matrix();
  Scratch u_all(static_cast<size_t>(d.groups() * u_group) * sizeof(float));
  float* u = u_all.as();
  parallel_for(d.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) transform_group<S>(d, w, g, u + g * u_group);
  });
  // V of one block leaves most of the second-level cache to U, M and the prefetched pixels.
  constexpr int64_t least = 2;
  const int64_t fit = (int64_t{64} << 10) / (S::kPlanes * 4 * d.in);
  const int64_t size = std::clamp(fit / kTileRows, least, int64_t{16}) * kTileRows;
  const int64_t tiles = d.n * tiling<S>(d).per_image();
  parallel_for(tiles, kTileRows, [&](int64_t begin, int64_t end) {
    Scratch v(Block::bytes<S>(size, d.in)), m(m_bytes<S>(size));
    for (int64_t t = begin; t < end; t += size) {
      const int64_t stop = std::min(end, t + size);
      const Block block{v.as(), t, size, d.in};
      transform_input<S>(d, x, t, stop, block);
      const Ahead<T> ahead{x, stop, std::min(end, stop + size)};
      for (int64_t g = 0; g < d.groups(); ++g)
        group_outputs<S>(d, block, u + g * u_group, m.as(), t, stop, g, y, ahead);
    }
  });
}

// The size of near-equal shares of tiles, in whole register blocks; `most` fit.
int64_t even_share(int64_t tiles, int64_t most) {
  const int64_t rows = std::max<int64_t>(kTileRows, most / kTileRows * kTileRows);
  const int64_t shares = (tiles + rows - 1) / rows;
  return ((tiles + shares - 1) / shares + kTileRows - 1) / kTileRows * kTileRows;
}

// All threads work on the same tiles, each for its own output channels.
template <class S, class T>
void split_channels(const Direction& d, const T* x, const float* w, T* y) {
  const int64_t fit = (int64_t{12} << 20) / (S::kPlanes * 4 * d.in);
  const int64_t tiles = d.n * tiling<S>(d).per_image();
  const int64_t size = even_share(tiles, fit);
  // M of one part stays in the second-level cache.
  const int64_t part = even_share(size, (int64_t{512} << 10) / (S::kPlanes * 4 * kGroup));
  Scratch v(Block::bytes<S>(size, d.in));
  for (int64_t t = 0; t < tiles; t += size) {
    const int64_t stop = std::min(tiles, t + size);
    const Block block{v.as(), t, size, d.in};
    parallel_for(stop - t, 1, [&](int64_t begin, int64_t end) {
      transform_input<S>(d, x, t + begin, t + end, block);
    });
    parallel_for(d.groups(), 1, [&](int64_t begin, int64_t end) {
      Scratch u(static_cast<size_t>(kMatrices * d.matrix()) * sizeof(float));
      Scratch m(m_bytes<S>(part));
      for (int64_t g = begin; g < end; ++g) {
        transform_group<S>(d, w, g, u.as());
        for (int64_t i = t; i < stop; i += part)
          group_outputs<S>(d, block, u.as(), m.as(), i, std::min(stop, i + part), g, y, Ahead<T>());
      }
    });
  }
}

template <class S, class T>
void run(const Direction& d, const T* x, const float* w, T* y) {
  const bool many = d.in * d.out >= 256 * 256 && d.groups() >= num_threads();
  (many ? split_channels<S, T> : split_tiles<S, T>)(d, x, w, y);
}

}  // namespace

bool applies(const ConvProblem& d) {
  const bool unit = d.stride_h == 1 && d.stride_w == 1 && d.pad_h <= 2 && d.pad_w <= 2;
  const bool two = d.stride_h == 2 && d.stride_w == 2 && d.pad_h == 1 && d.pad_w == 1;
  return d.r == 3 && d.s == 3 && d.dil_h == 1 && d.dil_w == 1 && d.groups == 1 && (unit || two) &&
         is_blocked(d.c) && is_blocked(d.k);
}

namespace {
template <class T>
void forward_from(const ConvProblem& d, const T* x, const ConvPrologue& prologue, const float* w,
                  const ConvEpilogue& epilogue, T* y) {
  const Direction forth{d.n,     d.c,     d.k,     d.h, d.w,   d.p,      d.q,
                        d.pad_h, d.pad_w, d.c * 9, 9,   false, epilogue, prologue};
  (d.stride_h == 1 ? run<Stride1, T> : run<Stride2, T>)(forth, x, w, y);
}

template <class T>
void grad_input(const ConvProblem& d, const T* gy, const float* w, const ConvEpilogue& epilogue,
                T* gx) {
  Direction back{d.n, d.k, d.c, d.p, d.q, d.h, d.w, 0, 0, 9, d.c * 9, true, epilogue, {}};
  if (d.stride_h == 2) return run<Stride2Gradient>(back, gy, w, gx);
  back.pad_h = 2 - d.pad_h, back.pad_w = 2 - d.pad_w;
  run<Stride1>(back, gy, w, gx);
}
}  // namespace

template <class T>
void forward(const ConvProblem& d, const T* x, const float* w, const ConvEpilogue& epilogue, T* y) {
  forward_from<T>(d, x, {}, w, epilogue, y);
}

void forward_from(const ConvProblem& d, const float* x, const ConvPrologue& prologue,
                  const float* w, const ConvEpilogue& epilogue, float* y) {
  forward_from<float>(d, x, prologue, w, epilogue, y);
}

template <class T>
void grad_input(const ConvProblem& d, const T* gy, const float* w, T* gx) {
  grad_input(d, gy, w, ConvEpilogue(), gx);
}

void grad_input_plus(const ConvProblem& d, const float* gy, const float* w, const float* sum,
                     float* gx) {
  ConvEpilogue epilogue;
  epilogue.residual = sum;
  grad_input(d, gy, w, epilogue, gx);
}

template void forward(const ConvProblem&, const float*, const float*, const ConvEpilogue&, float*);
template void forward(const ConvProblem&, const bfloat16*, const float*, const ConvEpilogue&,
                      bfloat16*);
template void grad_input(const ConvProblem&, const float*, const float*, float*);
template void grad_input(const ConvProblem&, const bfloat16*, const float*, bfloat16*);

}  // namespace mtcki::conv_winograd

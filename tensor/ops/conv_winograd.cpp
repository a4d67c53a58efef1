// Winograd F(4x4,3x3), forward and input gradient (the same with transposed, rotated weights).
//
// Per block of tiles: input transform V[36][tile][c]; then per group of output channels 36 small
// products M[36][tile][k] = V U and the output transform. A block's V stays in the second-level
// cache and M never becomes larger than one group, so that the 36 / 16 blow-up of the transformed
// data costs no memory traffic.
//
// Two ways to share the work. Few channels: every thread takes its own tiles, the transformed
// weights U are made once and shared. Many channels (U larger than the caches): all threads work on
// the same tiles, each for its own output channels, and makes only the U that it uses, group by
// group.
#include <omp.h>

#include <algorithm>
#include <utility>

#include "tensor/ops/conv_kernels.h"
#include "tensor/ops/winograd_transform.h"
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
  int64_t tiles_h() const { return (p + kOut - 1) / kOut; }
  int64_t tiles_w() const { return (q + kOut - 1) / kOut; }
  int64_t tiles() const { return n * tiles_h() * tiles_w(); }
  int64_t groups() const { return (out + kGroup - 1) / kGroup; }
  int64_t group_width(int64_t g) const { return std::min<int64_t>(kGroup, out - g * kGroup); }
  int64_t row() const { return in; }  // distance of V's rows
};

// m[R][KV vectors] = v[R][depth] u[depth][KV vectors]
template <int R, int KV>
void product(int64_t depth, const float* v, int64_t v_row, const float* u, float* m) {
  V acc[R][KV];
  MTCKI_UNROLL for (int r = 0; r < R; ++r) MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] =
      V{};
  for (int64_t c = 0; c < depth; ++c) {
    V uv[KV];
    MTCKI_UNROLL for (int k = 0; k < KV; ++k) uv[k] = load(u + (c * KV + k) * kWidth);
    MTCKI_UNROLL for (int r = 0; r < R; ++r) {
      const V x = broadcast(v[r * v_row + c]);
      MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[r][k] += x * uv[k];
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

// U of one output group: [36][in][width]. Weights are gathered to vectors along the output channel.
template <int KV>
void transform_weights(const Direction& d, const float* w, int64_t first, float* u) {
  constexpr int kLanes = KV * kWidth;
  alignas(64) float taps[kTaps * kTaps][kLanes];
  for (int64_t i = 0; i < d.in; ++i) {
    for (int o = 0; o < kLanes; ++o) {
      const float* from = w + (first + o) * d.out_step + i * d.in_step;
      if (d.rotate) {
        MTCKI_UNROLL for (int t = 0; t < 9; ++t) taps[t][o] = from[8 - t];
      } else {
        MTCKI_UNROLL for (int t = 0; t < 9; ++t) taps[t][o] = from[t];
      }
    }
    for (int v = 0; v < KV; ++v) {
      V rows[kIn][kTaps];
      MTCKI_UNROLL for (int j = 0; j < kTaps; ++j) {
        V g[kTaps], x[kIn];
        MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) g[t] = load(&taps[t * kTaps + j][v * kWidth]);
        weight_transform(g, x);
        MTCKI_UNROLL for (int t = 0; t < kIn; ++t) rows[t][j] = x[t];
      }
      MTCKI_UNROLL for (int t = 0; t < kIn; ++t) {
        V x[kIn];
        weight_transform(rows[t], x);
        MTCKI_UNROLL for (int j = 0; j < kIn; ++j)
            store(u + ((t * kIn + j) * d.in + i) * kLanes + v * kWidth, x[j]);
      }
    }
  }
}

void transform_weights(const Direction& d, const float* w, int64_t group, float* u) {
  if (d.group_width(group) == kGroup) {
    transform_weights<2>(d, w, group * kGroup, u);
  } else {
    transform_weights<1>(d, w, group * kGroup, u);
  }
}

// Asks for the pixels of (tile, channel block) units ahead of their use. The products between two
// transforms leave the memory system idle, and a tile's short rows defeat the hardware's
// prefetchers. Units [from, to) count `blocks` channel blocks per tile, from tile `first` and block
// `block0` on.
template <bool kWrite>
MTCKI_INLINE void prefetch(const float* data, int64_t channels, int64_t h, int64_t w,
                           int64_t tiles_h, int64_t tiles_w, int64_t first, int64_t block0,
                           int64_t blocks, int64_t from, int64_t to) {
  for (int64_t u = from; u < to; ++u) {
    const int64_t t = first + u / blocks, block = block0 + u % blocks;
    const int64_t n = t / (tiles_h * tiles_w), r = t % (tiles_h * tiles_w);
    const int64_t row = r / tiles_w * kOut, column = r % tiles_w * kOut;
    const float* p = data + ((n * channels / kWidth + block) * h * w + row * w + column) * kWidth;
    const int64_t rows = std::min<int64_t>(kOut, h - row);
    for (int64_t i = 0; i < rows; ++i, p += w * kWidth)
      for (int64_t line = 0; line < kOut * kWidth; line += 16)
        __builtin_prefetch(p + line, kWrite ? 1 : 0, 2);
  }
}

// Tiles [begin, end) of x into V, whose first row is tile `begin`.
void transform_input(const Direction& d, const float* x, int64_t begin, int64_t end, float* v,
                     int64_t plane) {
  const int64_t tw = d.tiles_w(), per_image = d.tiles_h() * tw;
  const int64_t row_stride = d.w * kWidth, channel_stride = d.h * row_stride;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t n = t / per_image, r = t % per_image;
    const int64_t row = r / tw * kOut - d.pad_h, column = r % tw * kOut - d.pad_w;
    const Span rows = clip(row, kIn, d.h), columns = clip(column, kIn, d.w);
    const float* image = x + n * d.in * d.h * d.w;
    float* out = v + (t - begin) * d.row();
    if (rows.all(kIn) && columns.all(kIn)) {
      for (int64_t c = 0; c < d.in; c += kWidth, image += channel_stride)
        input_tile<false>(image, row, column, row_stride, rows, columns, out + c, plane);
    } else {
      for (int64_t c = 0; c < d.in; c += kWidth, image += channel_stride)
        input_tile<true>(image, row, column, row_stride, rows, columns, out + c, plane);
    }
  }
}

// Tiles whose input is to be prefetched meanwhile.
struct Ahead {
  const float* x = nullptr;
  int64_t begin = 0, end = 0;
};

// One output group for tiles [begin, end) that are in V: products, then the output transform.
template <int KV>
void outputs(const Direction& d, const float* v, int64_t plane, const float* u, float* m,
             int64_t begin, int64_t end, int64_t group, const float* bias, float* y,
             const Ahead& ahead) {
  constexpr int64_t kLanes = KV * kWidth;
  const int64_t count = end - begin, m_plane = plane_size(count * kLanes);
  const int64_t tiles_h = d.tiles_h(), tiles_w = d.tiles_w();
  const int64_t in_blocks = d.in / kWidth, units = (ahead.end - ahead.begin) * in_blocks;
  for (int point = 0; point < kPoints; ++point) {
    prefetch<true>(y, d.out, d.p, d.q, tiles_h, tiles_w, begin, group * 2, KV,
                   count * KV * point / kPoints, count * KV * (point + 1) / kPoints);
    const int64_t step = group * kPoints + point, steps = d.groups() * kPoints;
    prefetch<false>(ahead.x, d.in, d.h, d.w, tiles_h, tiles_w, ahead.begin, 0, in_blocks,
                    units * step / steps, units * (step + 1) / steps);
    const float* uu = u + point * d.in * kLanes;
    const float* vv = v + point * plane;
    float* mm = m + point * m_plane;
    int64_t t = 0;
    for (; t + kTileRows <= count; t += kTileRows)
      product<kTileRows, KV>(d.in, vv + t * d.row(), d.row(), uu, mm + t * kLanes);
    if (t < count) pick<KV>(count - t)(d.in, vv + t * d.row(), d.row(), uu, mm + t * kLanes);
  }
  for (int64_t t = begin; t < end; ++t) {
    const int64_t n = t / (tiles_h * tiles_w), r = t % (tiles_h * tiles_w);
    const int64_t row = r / tiles_w * kOut, column = r % tiles_w * kOut;
    const int rows = static_cast<int>(std::min<int64_t>(kOut, d.p - row));
    const int columns = static_cast<int>(std::min<int64_t>(kOut, d.q - column));
    for (int k = 0; k < KV; ++k) {
      const int64_t channel = group * kGroup + k * kWidth;
      const V add = bias ? load(bias + channel) : V{};
      output_tile(m + (t - begin) * kLanes + k * kWidth, m_plane, add,
                  y + ((n * d.out + channel) * d.p * d.q) + (row * d.q + column) * kWidth,
                  d.q * kWidth, rows, columns);
    }
  }
}

void outputs(const Direction& d, const float* v, int64_t plane, const float* u, float* m,
             int64_t begin, int64_t end, int64_t group, const float* bias, float* y,
             const Ahead& ahead) {
  if (d.group_width(group) == kGroup) {
    outputs<2>(d, v, plane, u, m, begin, end, group, bias, y, ahead);
  } else {
    outputs<1>(d, v, plane, u, m, begin, end, group, bias, y, ahead);
  }
}

// Every thread has its own tiles.
void split_tiles(const Direction& d, const float* x, const float* w, const float* bias, float* y) {
  const int64_t u_group = kPoints * d.in * kGroup;
  Scratch u_all(static_cast<size_t>(d.groups() * u_group) * sizeof(float));
  float* u = u_all.as();
  parallel_for(d.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) transform_weights(d, w, g, u + g * u_group);
  });
  // V of one block: about half of the second-level cache.
  const int64_t fit = (int64_t{256} << 10) / (kPoints * 4 * d.in);
  const int64_t block = std::clamp(fit / kTileRows, int64_t{4}, int64_t{16}) * kTileRows;
  parallel_for(d.tiles(), kTileRows, [&](int64_t begin, int64_t end) {
    const int64_t plane = plane_size(block * d.row());
    Scratch v(static_cast<size_t>(kPoints * plane) * sizeof(float));
    Scratch m(static_cast<size_t>(kPoints * plane_size(block * kGroup)) * sizeof(float));
    for (int64_t t = begin; t < end; t += block) {
      const int64_t stop = std::min(end, t + block);
      transform_input(d, x, t, stop, v.as(), plane);
      const Ahead ahead{x, stop, std::min(end, stop + block)};
      for (int64_t g = 0; g < d.groups(); ++g)
        outputs(d, v.as(), plane, u + g * u_group, m.as(), t, stop, g, bias, y, ahead);
    }
  });
}

// All threads work on the same tiles, each for its own output channels.
void split_channels(const Direction& d, const float* x, const float* w, const float* bias,
                    float* y) {
  const int64_t fit = (int64_t{12} << 20) / (kPoints * 4 * d.in);
  const int64_t tiles = d.tiles();
  const int64_t most = std::max<int64_t>(kTileRows, fit / kTileRows * kTileRows);
  const int64_t blocks = (tiles + most - 1) / most;
  const int64_t block = ((tiles + blocks - 1) / blocks + kTileRows - 1) / kTileRows * kTileRows;
  const int64_t plane = plane_size(block * d.row());
  Scratch v(static_cast<size_t>(kPoints * plane) * sizeof(float));
  for (int64_t t = 0; t < tiles; t += block) {
    const int64_t stop = std::min(tiles, t + block);
    parallel_for(stop - t, 1, [&](int64_t begin, int64_t end) {
      transform_input(d, x, t + begin, t + end, v.as() + begin * d.row(), plane);
    });
    parallel_for(d.groups(), 1, [&](int64_t begin, int64_t end) {
      Scratch u(static_cast<size_t>(kPoints * d.in * kGroup) * sizeof(float));
      Scratch m(static_cast<size_t>(kPoints * plane_size(block * kGroup)) * sizeof(float));
      for (int64_t g = begin; g < end; ++g) {
        transform_weights(d, w, g, u.as());
        outputs(d, v.as(), plane, u.as(), m.as(), t, stop, g, bias, y, Ahead());
      }
    });
  }
}

void run(const Direction& d, const float* x, const float* w, const float* bias, float* y) {
  const bool many = d.in * d.out >= 192 * 192 && d.groups() >= num_threads();
  (many ? split_channels : split_tiles)(d, x, w, bias, y);
}

}  // namespace

bool applies(const ConvProblem& d) {
  return d.r == 3 && d.s == 3 && d.stride_h == 1 && d.stride_w == 1 && d.dil_h == 1 &&
         d.dil_w == 1 && d.groups == 1 && d.pad_h <= 2 && d.pad_w <= 2 && is_blocked(d.c) &&
         is_blocked(d.k);
}

void forward(const ConvProblem& d, const float* x, const float* w, const float* bias, float* y) {
  run({d.n, d.c, d.k, d.h, d.w, d.p, d.q, d.pad_h, d.pad_w, d.c * 9, 9, false}, x, w, bias, y);
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  run({d.n, d.k, d.c, d.p, d.q, d.h, d.w, 2 - d.pad_h, 2 - d.pad_w, 9, d.c * 9, true}, gy, w,
      nullptr, gx);
}

}  // namespace mtcki::conv_winograd

// bf16 convolutions by matrix tiles (Intel AMX). A product takes 16 rows of 32 values and 16 pairs
// of rows of 16 columns, and adds 16 x 16 sums in f32: C[m][n] += sum over 32 of A[m][.] B[.][n].
//
// Everything is cut by images first: a tile holds one pixel of 16 or 32 images. So a tap that falls
// on padding is left out, a stride only picks other pixels, and small maps are as good as large
// ones; a row of pixels as the tile's dimension would be cut at every border.
//
// Weight gradient: sums over 32 images of gy[k][image] x[image][c], over all pixels of a band that
// stays in the second-level cache. Forward and input gradient: 16 images of one pixel by 32 input
// channels, times weights, over the taps that meet the pixel.
#include "tensor/ops/conv/amx_cpu.h"

#include <algorithm>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/kernels/transpose.h"
#include "tensor/ops/conv/amx_tiles.h"
#include "tensor/parallel.h"

namespace mtcki::conv_amx {

namespace {

constexpr int64_t kBlock = 32;      // channels of two tiles, images of a tile of pairs
constexpr int64_t kTile = 16 * 32;  // bf16 values of a tile
constexpr int64_t kPair = 2 * kTile;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Two tiles of pairs: to[c / 16][i][c % 16] = images 2i and 2i + 1 of 32 channels.
void pack_pairs(const bfloat16* from, int64_t image, int64_t images, uint32_t* to) {
  static constexpr bfloat16 kZeros[kBlock] = {};
  for (int64_t i = 0; i < 16; ++i) {
    const auto* even =
        reinterpret_cast<const uint16_t*>(2 * i < images ? from + 2 * i * image : kZeros);
    const auto* odd =
        reinterpret_cast<const uint16_t*>(2 * i + 1 < images ? from + (2 * i + 1) * image : kZeros);
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t c = 0; c < 16; ++c)
        to[half * 256 + i * 16 + c] =
            even[half * 16 + c] | static_cast<uint32_t>(odd[half * 16 + c]) << 16;
  }
}

// Two tiles of rows: to[c / 16][c % 16][image], the transposed pairs.
void pack_rows(const bfloat16* from, int64_t image, int64_t images, uint32_t* to) {
  alignas(64) uint32_t pairs[2 * 256];
  pack_pairs(from, image, images, pairs);
  for (int64_t half = 0; half < 512; half += 256) {
    const void* rows[16];
    for (int64_t i = 0; i < 16; ++i) rows[i] = pairs + half + 16 * i;
    transpose_square<16>(rows, to + half, 16);
  }
}

// Four tiles of sums: 2 x 2 from two tiles of rows and two of pairs.
template <class Tiles>
void zero_square() {
  Tiles::template zero<0>(), Tiles::template zero<1>();
  Tiles::template zero<2>(), Tiles::template zero<3>();
}
template <class Tiles>
void add_products(const bfloat16* a, const bfloat16* b) {
  Tiles::template load<4>(a, 64), Tiles::template load<6>(b, 64);
  Tiles::template load<5>(a + kTile, 64), Tiles::template load<7>(b + kTile, 64);
  Tiles::template multiply<0, 4, 6>(), Tiles::template multiply<1, 4, 7>();
  Tiles::template multiply<2, 5, 6>(), Tiles::template multiply<3, 5, 7>();
}
template <class Tiles>
void store_square(float* to, int64_t width) {
  const int64_t pitch = width * static_cast<int64_t>(sizeof(float));
  Tiles::template store<0>(to, pitch), Tiles::template store<1>(to + 16, pitch);
  Tiles::template store<2>(to + 16 * width, pitch);
  Tiles::template store<3>(to + 16 * width + 16, pitch);
}
template <class Tiles>
void load_square(const float* from, int64_t width) {
  const int64_t pitch = width * static_cast<int64_t>(sizeof(float));
  Tiles::template load<0>(from, pitch), Tiles::template load<1>(from + 16, pitch);
  Tiles::template load<2>(from + 16 * width, pitch);
  Tiles::template load<3>(from + 16 * width + 16, pitch);
}

// Taps that meet output row p at input row h: h = p * stride + tap * dilation - pad.
struct Axis {
  int64_t in, out, stride, pad, dilation;
  int64_t at(int64_t p, int64_t tap) const { return p * stride + tap * dilation - pad; }
  // The outputs [begin, end) for which a tap stays inside.
  int64_t begin(int64_t tap) const {
    return std::clamp<int64_t>(ceil_div(std::max<int64_t>(0, pad - tap * dilation), stride), 0,
                               out);
  }
  int64_t end(int64_t tap) const {
    const int64_t room = in - 1 + pad - tap * dilation;
    return room < 0 ? 0 : std::min(out, room / stride + 1);
  }
};
Axis rows_of(const ConvProblem& d) { return {d.h, d.p, d.stride_h, d.pad_h, d.dil_h}; }
Axis columns_of(const ConvProblem& d) { return {d.w, d.q, d.stride_w, d.pad_w, d.dil_w}; }

// ---- weight gradient ----

// What is packed at a time: output rows [p0, p1) of `groups` groups of 32 images from `group` on.
struct Band {
  int64_t p0, p1, group, groups;
};

struct WeightGradient {
  const ConvProblem& d;
  Axis rows, columns;
  int64_t image_groups, taps;
  explicit WeightGradient(const ConvProblem& p)
      : d(p),
        rows(rows_of(p)),
        columns(columns_of(p)),
        image_groups(ceil_div(p.n, kBlock)),
        taps(p.r * p.s) {}

  int64_t first_row(const Band& b) const { return std::clamp<int64_t>(rows.at(b.p0, 0), 0, d.h); }
  int64_t last_row(const Band& b) const {
    return std::clamp<int64_t>(rows.at(b.p1 - 1, d.r - 1) + 1, first_row(b), d.h);
  }
  int64_t gy_block(const Band& b) const { return (b.p1 - b.p0) * d.q * b.groups * kPair; }
  int64_t x_block(const Band& b) const {
    return (last_row(b) - first_row(b)) * d.w * b.groups * kPair;
  }
  int64_t gy_size(const Band& b) const { return d.k / kBlock * gy_block(b); }
  int64_t x_size(const Band& b) const { return d.c / kBlock * x_block(b); }

  // Pixel rows of one tensor, [block][row][column][group] pairs of tiles: rows `i` of
  // blocks * (end - begin).
  template <class Pack>
  void pack(const bfloat16* from, int64_t channels, int64_t h, int64_t w, const Band& b,
            int64_t begin, int64_t end, int64_t i, bfloat16* to, const Pack& pack_one) const {
    const int64_t count = end - begin, block = i / count, row = begin + i % count;
    auto* out = reinterpret_cast<uint32_t*>(to + i * w * b.groups * kPair);
    for (int64_t column = 0; column < w; ++column)
      for (int64_t g = 0; g < b.groups; ++g, out += kPair / 2) {
        const int64_t n = (b.group + g) * kBlock;
        pack_one(from + ((n * h + row) * w + column) * channels + block * kBlock, h * w * channels,
                 std::min(kBlock, d.n - n), out);
      }
  }
  int64_t gy_rows(const Band& b) const { return d.k / kBlock * (b.p1 - b.p0); }
  int64_t x_rows(const Band& b) const { return d.c / kBlock * (last_row(b) - first_row(b)); }
  void pack_gy(const bfloat16* gy, const Band& b, int64_t i, bfloat16* to) const {
    pack(gy, d.k, d.p, d.q, b, b.p0, b.p1, i, to, pack_rows);
  }
  void pack_x(const bfloat16* x, const Band& b, int64_t i, bfloat16* to) const {
    pack(x, d.c, d.h, d.w, b, first_row(b), last_row(b), i, to, pack_pairs);
  }

  // dw[tap][k][c] of 32 x 32 channels: stored by the first band, added to by the others.
  template <class Tiles>
  void accumulate(const Band& b, int64_t kb, int64_t cb, const bfloat16* gy, const bfloat16* x,
                  bool first, float* dw) const {
    gy += kb * gy_block(b);
    x += cb * x_block(b);
    const int64_t x_first = first_row(b);
    for (int64_t r = 0; r < d.r; ++r)
      for (int64_t s = 0; s < d.s; ++s) {
        float* out = dw + ((r * d.s + s) * d.k + kb * kBlock) * d.c + cb * kBlock;
        first ? zero_square<Tiles>() : load_square<Tiles>(out, d.c);
        const int64_t q0 = columns.begin(s), q1 = columns.end(s);
        for (int64_t p = std::max(b.p0, rows.begin(r)), end = std::min(b.p1, rows.end(r)); p < end;
             ++p) {
          const bfloat16* a = gy + ((p - b.p0) * d.q + q0) * b.groups * kPair;
          const bfloat16* v =
              x + ((rows.at(p, r) - x_first) * d.w + columns.at(q0, s)) * b.groups * kPair;
          for (int64_t q = q0; q < q1; ++q, v += (d.stride_w - 1) * b.groups * kPair)
            for (int64_t g = 0; g < b.groups; ++g, a += kPair, v += kPair)
              add_products<Tiles>(a, v);
        }
        store_square<Tiles>(out, d.c);
      }
  }

  // Bands of at most `bytes` of packed values; enough of them for `shares`.
  std::vector<Band> bands(int64_t bytes, int64_t shares) const {
    const int64_t row = (d.q * d.k + std::min(d.h, d.stride_h) * d.w * d.c) * kBlock * 2;
    const int64_t fit = std::max<int64_t>(1, bytes / row);
    const int64_t share = std::max<int64_t>(1, image_groups * d.p / shares);
    const int64_t height = std::min({fit, share, d.p});
    const int64_t groups =
        height < d.p ? 1 : std::clamp<int64_t>(std::min(fit, share) / d.p, 1, image_groups);
    std::vector<Band> out;
    for (int64_t g = 0; g < image_groups; g += groups)
      for (int64_t p = 0; p < d.p; p += height)
        out.push_back({p, std::min(d.p, p + height), g, std::min(groups, image_groups - g)});
    return out;
  }

  // gw[k][c][tap] = sum over parts of dw[part][tap][k][c].
  void collect(const float* dw, int64_t parts, float* gw) const {
    const int64_t plane = d.k * d.c;
    parallel_for(d.k, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> sums(static_cast<size_t>(taps * kBlock));
      for (int64_t i = begin * d.c; i < end * d.c; i += kBlock) {
        for (int64_t t = 0; t < taps; ++t) {
          float* sum = sums.data() + t * kBlock;
          std::copy_n(dw + t * plane + i, kBlock, sum);
          for (int64_t p = 1; p < parts; ++p) {
            const float* more = dw + (p * taps + t) * plane + i;
            for (int64_t c = 0; c < kBlock; ++c) sum[c] += more[c];
          }
        }
        float* out = gw + i * taps;
        for (int64_t c = 0; c < kBlock; ++c)
          for (int64_t t = 0; t < taps; ++t) *out++ = sums[static_cast<size_t>(t * kBlock + c)];
      }
    });
  }

  // Few channels: every thread has its own bands and its own dw, added up in thread order.
  template <class Tiles>
  void split_bands(const bfloat16* gy, const bfloat16* x, float* gw) const {
    const std::vector<Band> all = bands(int64_t{1200} << 10, num_threads());
    const int64_t count = std::ssize(all), size = taps * d.k * d.c;
    const int64_t parts = std::min<int64_t>(num_threads(), count);
    const Scratch dw(static_cast<size_t>(parts * size) * sizeof(float));
    parallel_for(parts, 1, [&](int64_t first_part, int64_t last_part) {
      [[maybe_unused]] const typename Tiles::Scope scope;
      const Scratch gy_packed(static_cast<size_t>(gy_size(all[0])) * 2),
          x_packed(static_cast<size_t>(max_x(all)) * 2);
      for (int64_t part = first_part; part < last_part; ++part)
        for (int64_t i = count * part / parts, first = i; i < count * (part + 1) / parts; ++i) {
          const Band& b = all[static_cast<size_t>(i)];
          for (int64_t row = 0; row < gy_rows(b); ++row)
            pack_gy(gy, b, row, gy_packed.as<bfloat16>());
          for (int64_t row = 0; row < x_rows(b); ++row) pack_x(x, b, row, x_packed.as<bfloat16>());
          for (int64_t kb = 0; kb < d.k / kBlock; ++kb)
            for (int64_t cb = 0; cb < d.c / kBlock; ++cb)
              accumulate<Tiles>(b, kb, cb, gy_packed.as<bfloat16>(), x_packed.as<bfloat16>(),
                                i == first, dw.as() + part * size);
        }
    });
    collect(dw.as(), parts, gw);
  }

  // Many channels: all threads pack a band together, and each owns squares of dw.
  template <class Tiles>
  void split_channels(const bfloat16* gy, const bfloat16* x, float* gw) const {
    const std::vector<Band> all = bands(int64_t{16} << 20, 1);
    const Scratch dw(static_cast<size_t>(taps * d.k * d.c) * sizeof(float));
    const Scratch gy_packed(static_cast<size_t>(gy_size(all[0])) * 2),
        x_packed(static_cast<size_t>(max_x(all)) * 2);
    for (const Band& b : all) {
      const int64_t rows_of_gy = gy_rows(b), squares = d.k / kBlock * (d.c / kBlock);
      parallel_for(rows_of_gy + x_rows(b), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          if (i < rows_of_gy) {
            pack_gy(gy, b, i, gy_packed.as<bfloat16>());
          } else {
            pack_x(x, b, i - rows_of_gy, x_packed.as<bfloat16>());
          }
        }
      });
      parallel_for(squares, 1, [&](int64_t begin, int64_t end) {
        [[maybe_unused]] const typename Tiles::Scope scope;
        for (int64_t i = begin; i < end; ++i)
          accumulate<Tiles>(b, i / (d.c / kBlock), i % (d.c / kBlock), gy_packed.as<bfloat16>(),
                            x_packed.as<bfloat16>(), &b == all.data(), dw.as());
      });
    }
    collect(dw.as(), 1, gw);
  }
  int64_t max_x(const std::vector<Band>& all) const {
    int64_t most = 0;
    for (const Band& b : all) most = std::max(most, x_size(b));
    return most;
  }

  template <class Tiles>
  void run(const bfloat16* gy, const bfloat16* x, float* gw) const {
    const bool many =
        taps * d.k * d.c * 4 > (int64_t{1} << 20) && d.k / kBlock * (d.c / kBlock) >= num_threads();
    many ? split_channels<Tiles>(gy, x, gw) : split_bands<Tiles>(gy, x, gw);
  }
};

// ---- forward, and input gradient as its mirror image ----

// out[n][pixel] = sum over the sources of the pixel of in[n][source.pixel] w[source.tap].
struct Source {
  int64_t pixel, tap;
};
struct Gather {
  int64_t n, in, out, in_pixels, taps;
  int64_t out_step, in_step;  // of w[o * out_step + i * in_step + tap]
  std::vector<std::vector<Source>> sources;

  // Weights of 32 output channels, rounded: [tap][in / 32][two tiles of pairs of input channels].
  void pack_weights(const float* w, int64_t block, bfloat16* to) const {
    for (int64_t ib = 0; ib < in / kBlock; ++ib)
      for (int64_t o = 0; o < kBlock; ++o)
        for (int64_t i = 0; i < kBlock; i += 2) {
          const float* even = w + (block * kBlock + o) * out_step + (ib * kBlock + i) * in_step;
          bfloat16* out_pair = to + ib * kPair + o / 16 * kTile + i / 2 * 32 + o % 16 * 2;
          for (int64_t t = 0; t < taps; ++t, out_pair += in / kBlock * kPair)
            out_pair[0] = bfloat16(even[t]), out_pair[1] = bfloat16(even[in_step + t]);
        }
  }

  // The pixel's 32 channels of 32 images: [in / 32][pixel][two tiles of 16 images].
  void pack_images(const bfloat16* x, int64_t group, int64_t ib, bfloat16* to) const {
    const int64_t image = in_pixels * in, images = std::min(kBlock, n - group * kBlock);
    const bfloat16* from = x + group * kBlock * image + ib * kBlock;
    for (int64_t pixel = 0; pixel < in_pixels; ++pixel, from += in)
      for (int64_t i = 0; i < kBlock; ++i, to += kBlock) {
        if (i < images) {
          std::copy_n(from + i * image, kBlock, to);
        } else {
          std::fill_n(to, kBlock, bfloat16());
        }
      }
  }

  // 32 images by 32 output channels of one pixel, as f32.
  template <class Tiles>
  void sums(const bfloat16* x, const bfloat16* w, const std::vector<Source>& from, float* m) const {
    zero_square<Tiles>();
    for (const Source& s : from)
      for (int64_t ib = 0; ib < in / kBlock; ++ib)
        add_products<Tiles>(x + (ib * in_pixels + s.pixel) * kPair,
                            w + (s.tap * (in / kBlock) + ib) * kPair);
    store_square<Tiles>(m, kBlock);
  }

  template <class Tiles>
  void run(const bfloat16* x, const float* w, const float* bias, bfloat16* y) const {
    const int64_t groups = ceil_div(n, kBlock), blocks = out / kBlock, in_blocks = in / kBlock;
    const int64_t panel = taps * in_blocks * kPair, group_size = in_blocks * in_pixels * kPair;
    const int64_t out_pixels = std::ssize(sources);
    const Scratch packed_w(static_cast<size_t>(blocks * panel) * 2),
        packed_x(static_cast<size_t>(groups * group_size) * 2);
    parallel_for(blocks + groups * in_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (i < blocks) {
          pack_weights(w, i, packed_w.as<bfloat16>() + i * panel);
        } else {
          const int64_t j = i - blocks;
          pack_images(x, j / in_blocks, j % in_blocks,
                      packed_x.as<bfloat16>() + j * in_pixels * kPair);
        }
      }
    });
    parallel_for(groups * blocks, 1, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const typename Tiles::Scope scope;
      alignas(64) float m[kBlock * kBlock];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / blocks, block = i % blocks,
                      images = std::min(kBlock, n - group * kBlock);
        for (int64_t pixel = 0; pixel < out_pixels; ++pixel) {
          sums<Tiles>(packed_x.as<bfloat16>() + group * group_size,
                      packed_w.as<bfloat16>() + block * panel, sources[static_cast<size_t>(pixel)],
                      m);
          for (int64_t image = 0; image < images; ++image) {
            bfloat16* to =
                y + ((group * kBlock + image) * out_pixels + pixel) * out + block * kBlock;
            const float* sum = m + image * kBlock;
            for (int64_t v = 0; v < kBlock; v += Simd<float>::width) {
              const FloatVector add = bias ? load(bias + block * kBlock + v) : FloatVector{};
              store(to + v, load(sum + v) + add);
            }
          }
        }
      }
    });
  }
};

Gather forward_gather(const ConvProblem& d) {
  const Axis rows = rows_of(d), columns = columns_of(d);
  Gather g{d.n, d.c, d.k, d.h * d.w, d.r * d.s, d.c * d.r * d.s, d.r * d.s, {}};
  g.sources.resize(static_cast<size_t>(d.p * d.q));
  for (int64_t r = 0; r < d.r; ++r)
    for (int64_t s = 0; s < d.s; ++s)
      for (int64_t p = rows.begin(r); p < rows.end(r); ++p)
        for (int64_t q = columns.begin(s); q < columns.end(s); ++q)
          g.sources[static_cast<size_t>(p * d.q + q)].push_back(
              {rows.at(p, r) * d.w + columns.at(q, s), r * d.s + s});
  return g;
}

Gather gradient_gather(const ConvProblem& d) {
  const Axis rows = rows_of(d), columns = columns_of(d);
  Gather g{d.n, d.k, d.c, d.p * d.q, d.r * d.s, d.r * d.s, d.c * d.r * d.s, {}};
  g.sources.resize(static_cast<size_t>(d.h * d.w));
  for (int64_t r = 0; r < d.r; ++r)
    for (int64_t s = 0; s < d.s; ++s)
      for (int64_t p = rows.begin(r); p < rows.end(r); ++p)
        for (int64_t q = columns.begin(s); q < columns.end(s); ++q)
          g.sources[static_cast<size_t>(rows.at(p, r) * d.w + columns.at(q, s))].push_back(
              {p * d.q + q, r * d.s + s});
  return g;
}

}  // namespace

bool applies(const ConvProblem& d) {
  return d.groups == 1 && d.c % kBlock == 0 && d.k % kBlock == 0;
}

template <class Tiles>
void forward(const ConvProblem& d, const bfloat16* x, const float* w, const ConvEpilogue& epilogue,
             bfloat16* y) {
  forward_gather(d).run<Tiles>(x, w, epilogue.bias, y);
}
template <class Tiles>
void grad_input(const ConvProblem& d, const bfloat16* gy, const float* w, bfloat16* gx) {
  gradient_gather(d).run<Tiles>(gy, w, nullptr, gx);
}
template <class Tiles>
void grad_weight(const ConvProblem& d, const bfloat16* gy, const bfloat16* x, float* gw) {
  WeightGradient(d).run<Tiles>(gy, x, gw);
}

#define MTCKI_INSTANTIATE(Tiles)                                                                 \
  template void forward<Tiles>(const ConvProblem&, const bfloat16*, const float*,                \
                               const ConvEpilogue&, bfloat16*);                                  \
  template void grad_input<Tiles>(const ConvProblem&, const bfloat16*, const float*, bfloat16*); \
  template void grad_weight<Tiles>(const ConvProblem&, const bfloat16*, const bfloat16*, float*)
MTCKI_INSTANTIATE(amx::PlainTiles);
#if defined(__x86_64__)
MTCKI_INSTANTIATE(amx::Tiles);
#endif
#undef MTCKI_INSTANTIATE

}  // namespace mtcki::conv_amx

// Depthwise convolution (one filter per channel, groups = C = K) of f32 activations: the channels of
// a block are the lanes of a vector, so that every tap is one multiply-add. Activations whose
// channels fill no whole blocks are plain; they are copied into blocks, the last of which has lanes
// of zeros.
//
//   y[n, c, p, q] = sum over i, j of x[n, c, p s - pad + i dil, q s - pad + j dil] w[c, i, j]
//
// A plane of one block (32x32 in 32 KB) is read from the first cache for all of its taps. Columns
// whose taps all lie inside the image go several at a time; the others one by one.
#include <algorithm>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/parallel.h"

namespace mtcki::conv_depthwise {

namespace {

using V = FloatVector;
constexpr int64_t kBlock = kChannelBlock;
static_assert(Simd<float>::width == kBlock);
constexpr int kColumns = kSimdRegisters == 32 ? 12 : 6;
constexpr int64_t kImages = 8;  // whose part of a weight gradient is summed in f32

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// One dimension: output o reads inputs o * stride - pad + t * dilation of tap t. The padding may be
// negative (of an input gradient).
struct Axis {
  int64_t in, out, taps, stride, pad, dilation;
  struct Range {
    int64_t begin, end;
  };
  int64_t first(int64_t o) const { return o * stride - pad; }
  // Taps of output o that fall into the image.
  Range taps_of(int64_t o) const {
    const int64_t begin = std::clamp<int64_t>(ceil_div(-first(o), dilation), 0, taps);
    const int64_t end = floor_div(in - 1 - first(o), dilation) + 1;
    return {begin, std::clamp<int64_t>(end, begin, taps)};
  }
  // Outputs all of whose taps do.
  Range inside() const {
    const int64_t begin = std::clamp<int64_t>(ceil_div(pad, stride), 0, out);
    const int64_t end = floor_div(in - 1 - (taps - 1) * dilation + pad, stride) + 1;
    return {begin, std::clamp<int64_t>(end, begin, out)};
  }
};

Axis rows_of(const ConvProblem& d) { return {d.h, d.p, d.r, d.stride_h, d.pad_h, d.dil_h}; }
Axis columns_of(const ConvProblem& d) { return {d.w, d.q, d.s, d.stride_w, d.pad_w, d.dil_w}; }

// [C, taps] -> [block][tap][lane]
std::vector<float> packed(const ConvProblem& d, const float* w, bool flipped) {
  const int64_t taps = d.r * d.s;
  std::vector<float> out(static_cast<size_t>(d.c * taps));
  for (int64_t c = 0; c < d.c; ++c)
    for (int64_t t = 0; t < taps; ++t)
      out[static_cast<size_t>((c / kBlock * taps + t) * kBlock + c % kBlock)] =
          w[c * taps + (flipped ? taps - 1 - t : t)];
  return out;
}

// Of one row of one block.
struct Row {
  const float *in, *w;  // the plane; [tap][lane]
  Axis::Range taps;     // rows of the kernel that meet the image
  int64_t first;        // input row of tap 0
};

template <int kCount>
void sums(const Row& row, const Axis& rows, const Axis& columns, int64_t q, Axis::Range taps,
          V* out) {
  V acc[kCount];
  MTCKI_UNROLL for (int t = 0; t < kCount; ++t) acc[t] = V{};
  for (int64_t i = row.taps.begin; i < row.taps.end; ++i) {
    const float* line = row.in + (row.first + i * rows.dilation) * columns.in * kBlock;
    for (int64_t j = taps.begin; j < taps.end; ++j) {
      const V w = load_once(row.w + (i * columns.taps + j) * kBlock);
      const float* x = line + (columns.first(q) + j * columns.dilation) * kBlock;
      MTCKI_UNROLL for (int t = 0; t < kCount; ++t) acc[t] +=
          load(x + t * columns.stride * kBlock) * w;
    }
  }
  MTCKI_UNROLL for (int t = 0; t < kCount; ++t) out[t] = acc[t];
}

// out[n, block] from in[n, block], every plane by one thread. epilogue: its residual lies as out.
void planes(int64_t images, int64_t blocks, const Axis& rows, const Axis& columns, const float* in,
            const float* w, const ConvEpilogue& epilogue, float* out) {
  const Axis::Range inside = columns.inside();
  const auto finish = [&](V v, int64_t k, int64_t at) {
    if (epilogue.bias) v += load(epilogue.bias + k);
    if (epilogue.scale) v = v * load(epilogue.scale + k) + load(epilogue.shift + k);
    if (epilogue.residual) v += load(epilogue.residual + at);
    if (epilogue.relu) v = v < V{} ? V{} : v;
    store(out + at, v);
  };
  parallel_for(images * blocks, 1, [&](int64_t begin, int64_t end) {
    V acc[kColumns];
    for (int64_t nb = begin; nb < end; ++nb) {
      const int64_t b = nb % blocks;
      Row row{in + nb * rows.in * columns.in * kBlock,
              w + b * rows.taps * columns.taps * kBlock,
              {},
              0};
      for (int64_t p = 0; p < rows.out; ++p) {
        row.taps = rows.taps_of(p);
        row.first = rows.first(p);
        const int64_t at = (nb * rows.out + p) * columns.out * kBlock;
        for (int64_t q = 0; q < columns.out;) {
          const bool several = q >= inside.begin && q + kColumns <= inside.end;
          if (several) {
            sums<kColumns>(row, rows, columns, q, {0, columns.taps}, acc);
          } else {
            sums<1>(row, rows, columns, q, columns.taps_of(q), acc);
          }
          for (int64_t t = 0, count = several ? kColumns : 1; t < count; ++t, ++q)
            finish(acc[t], b * kBlock, at + q * kBlock);
        }
      }
    }
  });
}

// Adds row p of gy times rows of x to kTaps taps from j on: sum[i][j].
template <int kTaps>
void weight_row(const float* gy, const float* line, const Axis& columns, int64_t j, float* sum) {
  V acc[kTaps];
  MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) acc[t] = V{};
  const Axis::Range inside = columns.inside();
  const auto border = [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const Axis::Range taps = columns.taps_of(q);
      const V g = load(gy + q * kBlock);
      for (int t = 0; t < kTaps; ++t)
        if (j + t >= taps.begin && j + t < taps.end)
          acc[t] += g * load(line + (columns.first(q) + (j + t) * columns.dilation) * kBlock);
    }
  };
  border(0, inside.begin);
  for (int64_t q = inside.begin; q < inside.end; ++q) {
    const V g = load_once(gy + q * kBlock);
    const float* x = line + (columns.first(q) + j * columns.dilation) * kBlock;
    MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) acc[t] +=
        g * load(x + t * columns.dilation * kBlock);
  }
  border(inside.end, columns.out);
  MTCKI_UNROLL for (int t = 0; t < kTaps; ++t)
      store(sum + t * kBlock, load(sum + t * kBlock) + acc[t]);
}

// The same with channels up to the end of the last block.
ConvProblem whole_blocks(ConvProblem d) {
  d.c = d.k = d.groups = (d.c + kBlock - 1) / kBlock * kBlock;
  return d;
}

std::vector<float> whole_blocks(const ConvProblem& d, const float* w) {
  std::vector<float> out(static_cast<size_t>(whole_blocks(d).w_size()), 0.0f);
  std::copy_n(w, d.w_size(), out.begin());
  return out;
}

// f(block, lane, plane, begin, end) for the pixels of every channel of every image, a few at a time,
// so that those of a block stay in the first cache; plane -1 past the last channel.
template <class F>
void for_lanes(const ConvProblem& d, int64_t pixels, const F& f) {
  constexpr int64_t kPixels = 64;
  const int64_t blocks = (d.c + kBlock - 1) / kBlock;
  parallel_for(d.n * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t nb = first; nb < last; ++nb)
      for (int64_t at = 0; at < pixels; at += kPixels)
        for (int64_t lane = 0; lane < kBlock; ++lane) {
          const int64_t channel = nb % blocks * kBlock + lane;
          f(nb, lane, channel < d.c ? nb / blocks * d.c + channel : -1, at,
            std::min(pixels, at + kPixels));
        }
  });
}

// A plain activation in whole blocks.
class Blocked {
 public:
  Blocked(const ConvProblem& d, int64_t pixels)
      : d_(d),
        pixels_(pixels),
        scratch_(static_cast<size_t>(d.n * whole_blocks(d).c * pixels) * sizeof(float)) {}
  Blocked(const ConvProblem& d, int64_t pixels, const float* plain) : Blocked(d, pixels) {
    for_lanes(d_, pixels_, [&](int64_t nb, int64_t lane, int64_t plane, int64_t i, int64_t end) {
      float* out = data() + nb * pixels_ * kBlock + lane;
      const float* in = plane < 0 ? nullptr : plain + plane * pixels_;
      for (; i < end; ++i) out[i * kBlock] = in ? in[i] : 0.0f;
    });
  }
  float* data() const { return scratch_.as(); }
  void store(const ConvEpilogue& epilogue, float* plain) const {
    for_lanes(d_, pixels_, [&](int64_t nb, int64_t lane, int64_t plane, int64_t i, int64_t end) {
      if (plane < 0) return;
      const float* in = data() + nb * pixels_ * kBlock + lane;
      const int64_t channel = plane % d_.c, from = plane * pixels_;
      for (; i < end; ++i) plain[from + i] = epilogue(in[i * kBlock], channel, from + i);
    });
  }

 private:
  const ConvProblem& d_;
  int64_t pixels_;
  Scratch scratch_;
};

}  // namespace

bool applies(const ConvProblem& d) { return d.groups > 1 && d.groups == d.c && d.k == d.c; }

void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  if (!is_blocked(d.c)) {
    const Blocked in(d, d.h * d.w, x), out(d, d.p * d.q);
    forward(whole_blocks(d), in.data(), whole_blocks(d, w).data(), {}, out.data());
    return out.store(epilogue, y);
  }
  planes(d.n, d.c / kBlock, rows_of(d), columns_of(d), x, packed(d, w, false).data(), epilogue, y);
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  if (!is_blocked(d.c)) {
    const Blocked in(d, d.p * d.q, gy), out(d, d.h * d.w);
    grad_input(whole_blocks(d), in.data(), whole_blocks(d, w).data(), out.data());
    return out.store({}, gx);
  }
  const Axis rows = rows_of(d), columns = columns_of(d);
  if (d.stride_h == 1 && d.stride_w == 1) {
    // The convolution of gy with the kernel turned around.
    const auto turned = [](const Axis& a) {
      return Axis{a.out, a.in, a.taps, 1, (a.taps - 1) * a.dilation - a.pad, a.dilation};
    };
    planes(d.n, d.c / kBlock, turned(rows), turned(columns), gy, packed(d, w, true).data(), {}, gx);
    return;
  }
  const std::vector<float> all = packed(d, w, false);
  const int64_t blocks = d.c / kBlock, taps = d.r * d.s;
  parallel_for(d.n * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t nb = begin; nb < end; ++nb) {
      float* out = gx + nb * d.h * d.w * kBlock;
      const float *g = gy + nb * d.p * d.q * kBlock, *wb = all.data() + nb % blocks * taps * kBlock;
      std::fill(out, out + d.h * d.w * kBlock, 0.0f);
      for (int64_t p = 0; p < d.p; ++p)
        for (int64_t q = 0; q < d.q; ++q, g += kBlock) {
          const V v = load_once(g);
          const Axis::Range is = rows.taps_of(p), js = columns.taps_of(q);
          for (int64_t i = is.begin; i < is.end; ++i)
            for (int64_t j = js.begin; j < js.end; ++j) {
              float* to =
                  out +
                  ((rows.first(p) + i * d.dil_h) * d.w + columns.first(q) + j * d.dil_w) * kBlock;
              store(to, load(to) + v * load(wb + (i * d.s + j) * kBlock));
            }
        }
    }
  });
}

// In f32 along rows and over a few images, which the number of threads does not change; then in
// f64.
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  if (!is_blocked(d.c)) {
    const Blocked g(d, d.p * d.q, gy), in(d, d.h * d.w, x);
    std::vector<float> all(static_cast<size_t>(whole_blocks(d).w_size()));
    grad_weight(whole_blocks(d), g.data(), in.data(), all.data());
    std::copy_n(all.begin(), d.w_size(), gw);
    return;
  }
  const Axis rows = rows_of(d), columns = columns_of(d);
  const int64_t blocks = d.c / kBlock, taps = d.r * d.s, pieces = (d.n + kImages - 1) / kImages;
  const Scratch scratch(static_cast<size_t>(pieces * d.c * taps) * sizeof(float));
  float* parts = scratch.as();
  parallel_for(pieces * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t pb = begin; pb < end; ++pb) {
      const int64_t piece = pb / blocks, b = pb % blocks;
      float* sum = parts + pb * taps * kBlock;
      std::fill(sum, sum + taps * kBlock, 0.0f);
      for (int64_t n = piece * kImages; n < std::min(d.n, (piece + 1) * kImages); ++n)
        for (int64_t p = 0; p < d.p; ++p) {
          const float* g = gy + ((n * blocks + b) * d.p + p) * d.q * kBlock;
          const Axis::Range is = rows.taps_of(p);
          for (int64_t i = is.begin; i < is.end; ++i) {
            const int64_t h = rows.first(p) + i * d.dil_h;
            const float* line = x + ((n * blocks + b) * d.h + h) * d.w * kBlock;
            float* to = sum + i * d.s * kBlock;
            int64_t j = 0;
            for (; j + 3 <= d.s; j += 3) weight_row<3>(g, line, columns, j, to + j * kBlock);
            for (; j < d.s; ++j) weight_row<1>(g, line, columns, j, to + j * kBlock);
          }
        }
    }
  });
  for (int64_t c = 0; c < d.c; ++c)
    for (int64_t t = 0; t < taps; ++t) {
      double total = 0;
      for (int64_t piece = 0; piece < pieces; ++piece)
        total += parts[((piece * blocks + c / kBlock) * taps + t) * kBlock + c % kBlock];
      gw[c * taps + t] = static_cast<float>(total);
    }
}

}  // namespace mtcki::conv_depthwise

// Built-in direct convolution for any kernel, stride, padding and dilation: forward and input
// gradient. Both are sums over taps,
//
//   out[u, v, k] = sum over taps t, channels c of in[u * step + row_t, v * step + column_t, c]
//   w_t[c, k]
//
// The input gradient of a strided convolution splits into stride_h x stride_w phases of output
// pixels, each with its own subset of the taps. Register blocking: kPixels output pixels, taken
// anywhere from the strip, times two vectors of output channels. Outputs with very few channels
// (images) put the vector along the input channels instead and sum its lanes at the end.
#include <utility>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/strip.h"
#include "tensor/parallel.h"

namespace mtcki::conv_direct {

namespace {

using V = FloatVector;
constexpr int kWidth = Simd<float>::width;
constexpr int kPixels = kSimdRegisters == 32 ? 14 : 6;
constexpr int kGroup = 2 * kWidth;
constexpr int kFew = 4;  // at most so many output channels count as few

struct Tap {
  int64_t row, column;  // offset into the input
  int64_t index;        // r * S + s
};
struct Phase {
  int64_t row, column;    // first output pixel
  int64_t rows, columns;  // number of output pixels
  std::vector<Tap> taps;
};
struct Gather {
  Source in;
  int64_t n, k, h, w;          // output
  int64_t step_h, step_w;      // input pixels per output pixel of a phase
  int64_t stride_h, stride_w;  // output pixels between two of a phase
  int64_t out_step, in_step;   // weight of (k, c, tap): w[k * out_step + c * in_step + tap]
  std::vector<Phase> phases;
  bool few() const { return k <= kFew && in.blocked(); }
};

// What one call of a kernel reads; offsets of its pixels and of the taps are relative to `in`.
struct Operands {
  const float* in;
  const int64_t* pixels;
  const int64_t* taps;
  int64_t tap_count, blocks, block_size, lanes;
  const float* w;
  // Blocked outputs are stored by the kernel: pixel p, vector k at y[out[p] + k * y_block]. The
  // epilogue's pointers are those of the first channel and pixel.
  float* y;
  const int64_t* out;
  int64_t y_block;
  ConvEpilogue epilogue;
};

// kLanes: the number of channels per block when known at compile time, else 0.
template <int P, int KV, int kLanes>
void accumulate(const Operands& o, float* out) {
  const float* base[P];
  V acc[P][KV];
  MTCKI_UNROLL for (int p = 0; p < P; ++p) {
    base[p] = o.in + o.pixels[p];
    MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[p][k] = V{};
  }
  const float* w = o.w;
  const int64_t lanes = kLanes ? kLanes : o.lanes;
  for (int64_t b = 0; b < o.blocks; ++b)
    for (int64_t t = 0; t < o.tap_count; ++t) {
      const int64_t first = b * o.block_size + o.taps[t];
      for (int64_t c = first; c < first + lanes; ++c, w += KV * kWidth) {
        V wv[KV];
        MTCKI_UNROLL for (int k = 0; k < KV; ++k) wv[k] = load_once(w + k * kWidth);
        MTCKI_UNROLL for (int p = 0; p < P; ++p) {
          const V x = broadcast(base[p][c]);
          MTCKI_UNROLL for (int k = 0; k < KV; ++k) acc[p][k] += x * wv[k];
        }
      }
    }
  if (!o.y) {
    MTCKI_UNROLL for (int p = 0; p < P; ++p) MTCKI_UNROLL for (int k = 0; k < KV; ++k)
        store(out + (p * KV + k) * kWidth, acc[p][k]);
    return;
  }
  const ConvEpilogue& epilogue = o.epilogue;
  MTCKI_UNROLL for (int k = 0; k < KV; ++k) {
    const V bias = epilogue.bias ? load(epilogue.bias + k * kWidth) : V{};
    MTCKI_UNROLL for (int p = 0; p < P; ++p) acc[p][k] += bias;
    if (epilogue.scale) {
      const V scale = load(epilogue.scale + k * kWidth), shift = load(epilogue.shift + k * kWidth);
      MTCKI_UNROLL for (int p = 0; p < P; ++p) acc[p][k] = acc[p][k] * scale + shift;
    }
    if (epilogue.residual) {
      MTCKI_UNROLL for (int p = 0; p < P; ++p) acc[p][k] +=
          load(epilogue.residual + o.out[p] + k * o.y_block);
    }
    if (epilogue.relu) {
      MTCKI_UNROLL for (int p = 0; p < P; ++p) acc[p][k] = acc[p][k] < V{} ? V{} : acc[p][k];
    }
    MTCKI_UNROLL for (int p = 0; p < P; ++p) store(o.y + o.out[p] + k * o.y_block, acc[p][k]);
  }
}

// acc[pixel][k] as vectors along the input channels; w is [block][tap][k][lane]. out[pixel][k].
template <int P, int K>
void accumulate_few(const Operands& o, float* out) {
  const float* base[P];
  V acc[P][K];
  MTCKI_UNROLL for (int p = 0; p < P; ++p) {
    base[p] = o.in + o.pixels[p];
    MTCKI_UNROLL for (int k = 0; k < K; ++k) acc[p][k] = V{};
  }
  const float* w = o.w;
  for (int64_t b = 0; b < o.blocks; ++b)
    for (int64_t t = 0; t < o.tap_count; ++t, w += K * kWidth) {
      const int64_t at = b * o.block_size + o.taps[t];
      V wv[K];
      MTCKI_UNROLL for (int k = 0; k < K; ++k) wv[k] = load_once(w + k * kWidth);
      MTCKI_UNROLL for (int p = 0; p < P; ++p) {
        const V x = load_once(base[p] + at);
        MTCKI_UNROLL for (int k = 0; k < K; ++k) acc[p][k] += x * wv[k];
      }
    }
  MTCKI_UNROLL for (int p = 0; p < P; ++p) MTCKI_UNROLL for (int k = 0; k < K; ++k) out[p * K + k] =
      lane_sum(acc[p][k]);
}

using Kernel = void (*)(const Operands&, float*);
template <int KV, int kLanes, int... P>
Kernel pick(int64_t pixels, std::integer_sequence<int, P...>) {
  static constexpr Kernel table[] = {accumulate<P + 1, KV, kLanes>...};
  return table[pixels - 1];
}
Kernel pick(int64_t pixels, int vectors, bool blocked) {
  constexpr auto all = std::make_integer_sequence<int, kPixels>();
  if (blocked) return vectors == 2 ? pick<2, kWidth>(pixels, all) : pick<1, kWidth>(pixels, all);
  return vectors == 2 ? pick<2, 0>(pixels, all) : pick<1, 0>(pixels, all);
}
// As many pixels as fit in registers beside k weights and one input.
constexpr int few_pixels(int k) { return (kSimdRegisters == 32 ? 24 : 12) / k; }
template <int K, int... P>
Kernel pick_few(int64_t pixels, std::integer_sequence<int, P...>) {
  static constexpr Kernel table[] = {accumulate_few<P + 1, K>...};
  return table[pixels - 1];
}
Kernel pick_few(int64_t pixels, int64_t k) {
  switch (k) {
    case 1:
      return pick_few<1>(pixels, std::make_integer_sequence<int, few_pixels(1)>());
    case 2:
      return pick_few<2>(pixels, std::make_integer_sequence<int, few_pixels(2)>());
    case 3:
      return pick_few<3>(pixels, std::make_integer_sequence<int, few_pixels(3)>());
    default:
      return pick_few<4>(pixels, std::make_integer_sequence<int, few_pixels(4)>());
  }
}

// Weights of one phase in the order in which the kernels read them.
void pack_weights(const Gather& g, const Phase& phase, const float* w, float* out) {
  const int64_t lanes = g.in.lanes(), taps = std::ssize(phase.taps);
  if (g.few()) {
    for (int64_t b = 0; b < g.in.blocks(); ++b)
      for (const Tap& tap : phase.taps)
        for (int64_t k = 0; k < g.k; ++k)
          for (int64_t c = 0; c < lanes; ++c)
            *out++ = w[k * g.out_step + (b * lanes + c) * g.in_step + tap.index];
    return;
  }
  const int64_t padded = (g.k + kWidth - 1) / kWidth * kWidth;
  parallel_for((padded + kGroup - 1) / kGroup, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * kGroup, width = std::min<int64_t>(kGroup, padded - first);
      float* to = out + first * g.in.c * taps;
      for (int64_t b = 0; b < g.in.blocks(); ++b)
        for (const Tap& tap : phase.taps)
          for (int64_t c = 0; c < lanes; ++c)
            for (int64_t k = first; k < first + width; ++k)
              *to++ = k < g.k ? w[k * g.out_step + (b * lanes + c) * g.in_step + tap.index] : 0.0f;
    }
  });
}

class Strips {
 public:
  Strips(const Gather& g, const float* w, const ConvEpilogue& epilogue, float* y)
      : g_(g), tail_(epilogue), y_(y), padded_((g.k + kWidth - 1) / kWidth * kWidth) {
    low_h_ = low_w_ = INT64_MAX;
    high_h_ = high_w_ = INT64_MIN;
    int64_t weights = 0;
    for (const Phase& phase : g.phases) {
      rows_ = std::max(rows_, phase.rows);
      columns_ = std::max(columns_, phase.columns);
      weight_at_.push_back(weights);
      weights += std::ssize(phase.taps) * g.in.c * padded_;
      for (const Tap& t : phase.taps) {
        low_h_ = std::min(low_h_, t.row), high_h_ = std::max(high_h_, t.row);
        low_w_ = std::min(low_w_, t.column), high_w_ = std::max(high_w_, t.column);
      }
    }
    weights_ = std::make_unique<Scratch>(static_cast<size_t>(weights) * sizeof(float));
    for (size_t i = 0; i < g.phases.size(); ++i)
      pack_weights(g, g.phases[i], w, weights_->as() + weight_at_[i]);
    // Without borders and conversion the kernels read the input where it is.
    in_place_ = g.in.blocked() && low_h_ >= 0 && low_w_ >= 0 &&
                (rows_ - 1) * g.step_h + high_h_ < g.in.h &&
                (columns_ - 1) * g.step_w + high_w_ < g.in.w;
  }

  void run() {
    const int64_t pixels = std::clamp<int64_t>((int64_t{128} << 10) / 4 / g_.in.c, 48, 256);
    size_ = std::make_unique<StripSize>(rows_, columns_, g_.n, pixels);
    if (in_place_) {
      win_rows_ = g_.in.h, win_columns_ = g_.in.w;
    } else {
      win_rows_ = (size_->rows - 1) * g_.step_h + high_h_ - low_h_ + 1;
      win_columns_ = (columns_ - 1) * g_.step_w + high_w_ - low_w_ + 1;
    }
    for (const Phase& phase : g_.phases)
      tables_.push_back(table(phase, size_->images, size_->rows));
    const int64_t row_strips = size_->row_strips(rows_);
    const int64_t image_strips = (g_.n + size_->images - 1) / size_->images;
    parallel_for(row_strips * image_strips, 1, [&](int64_t begin, int64_t end) {
      const int64_t copied = in_place_ ? 0 : size_->images * g_.in.c * win_rows_ * win_columns_;
      Scratch copy(static_cast<size_t>(copied) * sizeof(float));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / row_strips * size_->images, row = i % row_strips * size_->rows;
        strip(n, std::min(size_->images, g_.n - n), row, copy.as());
      }
    });
  }

 private:
  // Offsets of a strip's pixels, relative to its first input pixel and output pixel.
  struct Table {
    std::vector<int64_t> in, out, taps;
  };
  int64_t out_lanes() const { return is_blocked(g_.k) ? kWidth : 1; }

  Table table(const Phase& phase, int64_t images, int64_t rows) const {
    const int64_t lanes = g_.in.lanes(), image_size = g_.in.c * win_rows_ * win_columns_;
    const int64_t origin = in_place_ ? 0 : -low_h_ * win_columns_ - low_w_;
    Table t;
    for (int64_t image = 0; image < images; ++image)
      for (int64_t u = 0; u < rows; ++u)
        for (int64_t v = 0; v < phase.columns; ++v) {
          t.in.push_back(image * image_size +
                         (origin + u * g_.step_h * win_columns_ + v * g_.step_w) * lanes);
          t.out.push_back(image * g_.k * g_.h * g_.w +
                          ((phase.row + u * g_.stride_h) * g_.w + phase.column + v * g_.stride_w) *
                              out_lanes());
        }
    for (const Tap& tap : phase.taps)
      t.taps.push_back((tap.row * win_columns_ + tap.column) * lanes);
    return t;
  }

  void strip(int64_t n, int64_t images, int64_t row, float* copy) const {
    const int64_t lanes = g_.in.lanes();
    Operands o{};
    if (in_place_) {
      o.in = g_.in.data + (n * g_.in.c * g_.in.h + row * g_.step_h * lanes) * g_.in.w;
    } else {
      pack(g_.in, {n, images, row * g_.step_h + low_h_, win_rows_, low_w_, win_columns_}, copy);
      o.in = copy;
    }
    o.blocks = g_.in.blocks();
    o.block_size = win_rows_ * win_columns_ * lanes;
    o.lanes = lanes;
    float* y = y_ + (n * g_.k * g_.h + row * g_.stride_h * out_lanes()) * g_.w;
    for (size_t i = 0; i < g_.phases.size(); ++i) {
      const Phase& phase = g_.phases[i];
      const int64_t rows = std::min(size_->rows, phase.rows - row);
      if (rows <= 0) continue;
      const bool whole = rows == size_->rows && images == size_->images;
      const Table partial = whole ? Table() : table(phase, images, rows);
      const Table& t = whole ? tables_[i] : partial;
      o.taps = t.taps.data();
      o.tap_count = std::ssize(t.taps);
      const float* w = weights_->as() + weight_at_[i];
      if (g_.few()) {
        few_outputs(o, w, t, y);
      } else {
        outputs(o, w, t, y);
      }
    }
  }

  void outputs(Operands& o, const float* w, const Table& t, float* y) const {
    alignas(64) float tile[kPixels * kGroup];
    const int64_t count = std::ssize(t.in), plane = g_.h * g_.w;
    const bool blocked = is_blocked(g_.k);
    for (int64_t k = 0; k < padded_; k += kGroup) {
      const int vectors = padded_ - k >= kGroup ? 2 : 1;
      o.w = w + k * g_.in.c * o.tap_count;
      o.y = blocked ? y + k * plane : nullptr;
      o.y_block = plane * kWidth;
      if (blocked) o.epilogue = tail_.from(k, o.y - y_);
      const Kernel full = pick(kPixels, vectors, g_.in.blocked());
      for (int64_t i = 0; i < count; i += kPixels) {
        const int64_t pixels = std::min<int64_t>(kPixels, count - i);
        o.pixels = t.in.data() + i;
        o.out = t.out.data() + i;
        (pixels == kPixels ? full : pick(pixels, vectors, g_.in.blocked()))(o, tile);
        if (blocked) continue;
        for (int64_t p = 0; p < pixels; ++p)
          for (int64_t c = k; c < std::min<int64_t>(k + vectors * kWidth, g_.k); ++c)
            store_one(tile[p * vectors * kWidth + c - k], c, y + o.out[p] + c * plane);
      }
    }
  }

  void few_outputs(Operands& o, const float* w, const Table& t, float* y) const {
    float tile[24];  // few_pixels(k) * k at most
    const int64_t count = std::ssize(t.in), plane = g_.h * g_.w;
    const int64_t step = few_pixels(static_cast<int>(g_.k));
    o.w = w;
    for (int64_t i = 0; i < count; i += step) {
      const int64_t pixels = std::min(step, count - i);
      o.pixels = t.in.data() + i;
      pick_few(pixels, g_.k)(o, tile);
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t k = 0; k < g_.k; ++k)
          store_one(tile[p * g_.k + k], k, y + t.out[static_cast<size_t>(i + p)] + k * plane);
    }
  }

  void store_one(float sum, int64_t k, float* to) const { *to = tail_(sum, k, to - y_); }

  const Gather& g_;
  const ConvEpilogue tail_;
  float* y_;
  int64_t padded_;
  int64_t rows_ = 0, columns_ = 0;  // of the largest phase
  int64_t low_h_, high_h_, low_w_, high_w_;
  int64_t win_rows_ = 0, win_columns_ = 0;  // of a strip's input
  bool in_place_ = false;
  std::unique_ptr<StripSize> size_;
  std::vector<Table> tables_;
  std::vector<int64_t> weight_at_;
  std::unique_ptr<Scratch> weights_;
};

}  // namespace

void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  Gather g{{x, d.c, d.h, d.w}, d.n,       d.k, d.p, d.q, d.stride_h, d.stride_w, 1, 1,
           d.c * d.r * d.s,    d.r * d.s, {}};
  Phase phase{0, 0, d.p, d.q, {}};
  for (int64_t i = 0; i < d.r; ++i)
    for (int64_t j = 0; j < d.s; ++j)
      phase.taps.push_back({i * d.dil_h - d.pad_h, j * d.dil_w - d.pad_w, i * d.s + j});
  g.phases.push_back(std::move(phase));
  Strips(g, w, epilogue, y).run();
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  Gather g{{gy, d.k, d.p, d.q}, d.n, d.c, d.h, d.w, 1, 1, d.stride_h, d.stride_w, d.r * d.s,
           d.c * d.r * d.s,     {}};
  bool gaps = false;  // pixels that no tap reaches
  for (int64_t a = 0; a < std::min(d.stride_h, d.h); ++a)
    for (int64_t b = 0; b < std::min(d.stride_w, d.w); ++b) {
      Phase phase{a,
                  b,
                  (d.h - a + d.stride_h - 1) / d.stride_h,
                  (d.w - b + d.stride_w - 1) / d.stride_w,
                  {}};
      for (int64_t i = 0; i < d.r; ++i)
        for (int64_t j = 0; j < d.s; ++j) {
          const int64_t row = a + d.pad_h - i * d.dil_h, column = b + d.pad_w - j * d.dil_w;
          if (row % d.stride_h == 0 && column % d.stride_w == 0)
            phase.taps.push_back({row / d.stride_h, column / d.stride_w, i * d.s + j});
        }
      if (phase.taps.empty()) {
        gaps = true;
      } else {
        g.phases.push_back(std::move(phase));
      }
    }
  if (gaps)
    parallel_for(d.x_size(), 1 << 16,
                 [&](int64_t begin, int64_t end) { std::fill(gx + begin, gx + end, 0.0f); });
  if (!g.phases.empty()) Strips(g, w, ConvEpilogue(), gx).run();
}

}  // namespace mtcki::conv_direct

// Depthwise convolution (one filter per channel, groups = C = K) of f32 activations: the channels of
// a block are the lanes of a vector, so that every tap is one multiply-add.
//
//   y[n, c, p, q] = sum over i, j of x[n, c, p s - pad + i dil, q s - pad + j dil] w[c, i, j]
//
// The plane of one block (32x32 in 32 KB) is copied into a window with the zeros around it, which
// all of its taps read from the first cache. Activations whose channels fill no whole blocks are
// plain; their planes become a block on the way and back, the last one with lanes of zeros.
#include <algorithm>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/kernels/transpose.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/parallel.h"

namespace mtcki::conv_depthwise {

namespace {

using V = FloatVector;
constexpr int64_t kBlock = kChannelBlock;
static_assert(Simd<float>::width == kBlock);
constexpr int64_t kImages = 8;  // whose part of a weight gradient is summed in f32

int64_t blocks_of(int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// One dimension: output o reads inputs o * stride - pad + t * dilation of tap t. The padding may be
// negative (of an input gradient).
struct Axis {
  int64_t in, out, taps, stride, pad, dilation;
  // What the taps read, from input -pad on.
  int64_t span() const { return (out - 1) * stride + (taps - 1) * dilation + 1; }
  // Inputs of the image among these.
  int64_t begin() const { return std::max<int64_t>(0, -pad); }
  int64_t end() const { return std::min(in, span() - pad); }
};

// The span of one block of channels in both dimensions.
struct Window {
  Axis rows, columns;

  explicit Window(const ConvProblem& d)
      : rows{d.h, d.p, d.r, d.stride_h, d.pad_h, d.dil_h}, columns{d.w,        d.q,     d.s,
                                                                   d.stride_w, d.pad_w, d.dil_w} {}
  // Of the input gradient at stride 1: the convolution of gy with the kernel turned around.
  Window turned() const {
    const auto turn = [](const Axis& a) {
      return Axis{a.out, a.in, a.taps, 1, (a.taps - 1) * a.dilation - a.pad, a.dilation};
    };
    Window out = *this;
    out.rows = turn(rows), out.columns = turn(columns);
    return out;
  }

  int64_t row() const { return columns.span() * kBlock; }
  int64_t size() const { return rows.span() * row(); }
  // Of each tap behind the first.
  std::vector<int64_t> offsets() const {
    std::vector<int64_t> out;
    for (int64_t i = 0; i < rows.taps; ++i)
      for (int64_t j = 0; j < columns.taps; ++j)
        out.push_back(i * rows.dilation * row() + j * columns.dilation * kBlock);
    return out;
  }
  // f(at in the image, at in the window, floats) for each row of the image.
  template <class F>
  void for_rows(const F& f) const {
    const int64_t first = columns.begin(), count = columns.end() - first;
    for (int64_t h = rows.begin(); count > 0 && h < rows.end(); ++h)
      f((h * columns.in + first) * kBlock, (h + rows.pad) * row() + (first + columns.pad) * kBlock,
        count * kBlock);
  }
  // The zeros of the window are there already. norm: of this block (Before), may be null.
  void fill(const float* image, const float* norm, float* window) const {
    if (norm == nullptr)
      return for_rows(
          [&](int64_t from, int64_t to, int64_t n) { std::copy_n(image + from, n, window + to); });
    const V offset = load(norm), scale = load(norm + kBlock), shift = load(norm + 2 * kBlock),
            most = load(norm + 3 * kBlock);
    for_rows([&](int64_t from, int64_t to, int64_t n) {
      for (int64_t i = 0; i < n; i += kBlock) {
        const V y = (load(image + from + i) + offset) * scale + shift, low = y < V{} ? V{} : y;
        store(window + to + i, low > most ? most : low);
      }
    });
  }
  void take(const float* window, float* image) const {
    std::fill_n(image, rows.in * columns.in * kBlock, 0.0f);  // where no tap reaches
    for_rows(
        [&](int64_t to, int64_t from, int64_t n) { std::copy_n(window + from, n, image + to); });
  }
};

// An activation, of which one image's block of channels is read or written at a time.
class Planes {
 public:
  // x is only read where the caller only reads.
  Planes(const float* x, int64_t channels, int64_t pixels)
      : x_(const_cast<float*>(x)), channels_(channels), pixels_(pixels) {}

  bool blocked() const { return is_blocked(channels_); }
  int64_t size() const { return pixels_ * kBlock; }
  // What a thread needs to hold a block.
  size_t buffer() const { return blocked() ? 0 : static_cast<size_t>(size()) * sizeof(float); }

  // Block nb = image * blocks + block: where it lies, else what load() fills and save() empties.
  float* at(int64_t nb, const Scratch& buffer) const {
    return blocked() ? x_ + nb * size() : buffer.as();
  }
  const float* load(int64_t nb, const Scratch& buffer) const {
    if (!blocked()) planes_to_lanes<kBlock>(plain(nb), pixels_, count(nb), pixels_, buffer.as());
    return at(nb, buffer);
  }
  void save(int64_t nb, const Scratch& buffer, const ConvEpilogue& epilogue) const {
    if (blocked()) return;
    lanes_to_planes<kBlock>(buffer.as(), pixels_, count(nb), pixels_, plain(nb));
    if (!epilogue.any()) return;
    for (int64_t i = 0; i < count(nb) * pixels_; ++i) {
      float* y = plain(nb) + i;
      *y = epilogue(*y, first(nb) + i / pixels_, y - x_);
    }
  }

 private:
  int64_t first(int64_t nb) const { return nb % blocks_of(channels_) * kBlock; }
  int64_t count(int64_t nb) const { return std::min(kBlock, channels_ - first(nb)); }
  float* plain(int64_t nb) const {
    return x_ + (nb / blocks_of(channels_) * channels_ + first(nb)) * pixels_;
  }

  float* x_;
  int64_t channels_, pixels_;
};

// A prologue as [block][offset, scale, shift, most][lane].
class Before {
 public:
  Before(const ConvPrologue& p, int64_t channels) {
    if (!p.scale) return;
    values_.resize(static_cast<size_t>(blocks_of(channels) * 4 * kBlock));
    for (int64_t c = 0; c < channels; ++c) {
      float* to = values_.data() + c / kBlock * 4 * kBlock + c % kBlock;
      to[0] = p.offset[c], to[kBlock] = p.scale[c], to[2 * kBlock] = p.shift[c];
      to[3 * kBlock] = p.most;
    }
  }
  const float* of(int64_t block) const {
    return values_.empty() ? nullptr : values_.data() + block * 4 * kBlock;
  }

 private:
  std::vector<float> values_;
};

// [C, taps] -> [block][tap][lane]
std::vector<float> packed(const ConvProblem& d, const float* w, bool flipped) {
  const int64_t taps = d.r * d.s;
  std::vector<float> out(static_cast<size_t>(blocks_of(d.c) * kBlock * taps));
  for (int64_t c = 0; c < d.c; ++c)
    for (int64_t t = 0; t < taps; ++t)
      out[static_cast<size_t>((c / kBlock * taps + t) * kBlock + c % kBlock)] =
          w[c * taps + (flipped ? taps - 1 - t : t)];
  return out;
}

// kCount columns of one row, from the window's pixel of their first tap; each tap's pixel lies
// offsets[tap] behind it. kStride: of the columns where known at compile time, else 0.
template <int kCount, int kStride>
void sums(const std::vector<int64_t>& offsets, const float* in, int64_t stride, const float* w,
          V* out) {
  V acc[kCount];
  MTCKI_UNROLL for (int t = 0; t < kCount; ++t) acc[t] = V{};
  const int64_t step = (kStride ? kStride : stride) * kBlock;
  for (const int64_t offset : offsets) {
    const V weight = load_once(w);
    MTCKI_UNROLL for (int t = 0; t < kCount; ++t) acc[t] += load(in + offset + t * step) * weight;
    w += kBlock;
  }
  MTCKI_UNROLL for (int t = 0; t < kCount; ++t) out[t] = acc[t];
}
using Sums = void (*)(const std::vector<int64_t>&, const float*, int64_t, const float*, V*);
template <int kCount>
Sums sums_at(int64_t stride) {
  return stride == 1 ? sums<kCount, 1> : stride == 2 ? sums<kCount, 2> : sums<kCount, 0>;
}

// Every block of y from one of x, by one thread.
void convolve(const ConvProblem& problem, const Window& d, const Planes& x, const Before& before,
              const float* w, const ConvEpilogue& epilogue, const Planes& y) {
  const bool tail = y.blocked() && epilogue.any();  // the epilogue has the blocks of y
  const auto finish = [&](V v, int64_t k, int64_t at) {
    if (epilogue.bias) v += load(epilogue.bias + k);
    if (epilogue.scale) v = v * load(epilogue.scale + k) + load(epilogue.shift + k);
    if (epilogue.residual) v += load(epilogue.residual + at);
    if (epilogue.relu) v = v < V{} ? V{} : v;
    return v;
  };
  const int64_t blocks = blocks_of(problem.c), width = d.columns.out, stride = d.columns.stride;
  const int64_t count = width >= 8 ? 8 : width >= 4 ? 4 : 1;
  const Sums columns = count == 8   ? sums_at<8>(stride)
                       : count == 4 ? sums_at<4>(stride)
                                    : sums_at<1>(stride);
  const std::vector<int64_t> offsets = d.offsets();
  parallel_for(problem.n * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch in(x.buffer()), out(y.buffer());
    std::vector<float> window(static_cast<size_t>(d.size()));
    V acc[8];
    for (int64_t nb = begin; nb < end; ++nb) {
      const int64_t b = nb % blocks;
      const float* weights = w + b * std::ssize(offsets) * kBlock;
      d.fill(x.load(nb, in), before.of(b), window.data());
      float* to = y.at(nb, out);
      for (int64_t p = 0; p < d.rows.out; ++p, to += width * kBlock)
        for (int64_t next = 0; next < width; next += count) {
          const int64_t q = std::min(next, width - count);  // the last columns may be done twice
          columns(offsets, window.data() + p * d.rows.stride * d.row() + q * stride * kBlock,
                  stride, weights, acc);
          for (int64_t t = 0; t < count; ++t)
            store(to + (q + t) * kBlock,
                  tail ? finish(acc[t], b * kBlock, nb * y.size() + (p * width + q + t) * kBlock)
                       : acc[t]);
        }
      y.save(nb, out, epilogue);
    }
  });
}

// Adds a row of gy times rows of the window to kTaps taps.
template <int kTaps>
void weight_row(const Window& d, const float* gy, const float* in, const int64_t* offsets,
                float* sum) {
  V acc[kTaps];
  int64_t at[kTaps];
  MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) acc[t] = V{}, at[t] = offsets[t];
  const int64_t step = d.columns.stride * kBlock;
  for (int64_t q = 0; q < d.columns.out; ++q, gy += kBlock, in += step) {
    const V g = load_once(gy);
    MTCKI_UNROLL for (int t = 0; t < kTaps; ++t) acc[t] += g * load(in + at[t]);
  }
  MTCKI_UNROLL for (int t = 0; t < kTaps; ++t)
      store(sum + t * kBlock, load(sum + t * kBlock) + acc[t]);
}

}  // namespace

bool applies(const ConvProblem& d) { return d.groups > 1 && d.groups == d.c && d.k == d.c; }

void forward_from(const ConvProblem& d, const float* x, const ConvPrologue& prologue,
                  const float* w, const ConvEpilogue& epilogue, float* y) {
  convolve(d, Window(d), {x, d.c, d.h * d.w}, {prologue, d.c}, packed(d, w, false).data(), epilogue,
           {y, d.c, d.p * d.q});
}
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  forward_from(d, x, {}, w, epilogue, y);
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  const Window window(d);
  const Planes from(gy, d.c, d.p * d.q), to(gx, d.c, d.h * d.w);
  if (d.stride_h == 1 && d.stride_w == 1)
    return convolve(d, window.turned(), from, {{}, d.c}, packed(d, w, true).data(), {}, to);
  const std::vector<float> all = packed(d, w, false);
  const std::vector<int64_t> offsets = window.offsets();
  const int64_t blocks = blocks_of(d.c), row = window.row();
  parallel_for(d.n * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch in(from.buffer()), out(to.buffer());
    std::vector<float> sum(static_cast<size_t>(window.size()));
    for (int64_t nb = begin; nb < end; ++nb) {
      std::ranges::fill(sum, 0.0f);
      const float* g = from.load(nb, in);
      for (int64_t p = 0; p < d.p; ++p)
        for (int64_t q = 0; q < d.q; ++q, g += kBlock) {
          const V v = load_once(g);
          const float* weight = all.data() + nb % blocks * std::ssize(offsets) * kBlock;
          float* pixel = sum.data() + p * d.stride_h * row + q * d.stride_w * kBlock;
          for (const int64_t offset : offsets) {
            store(pixel + offset, load(pixel + offset) + v * load(weight));
            weight += kBlock;
          }
        }
      window.take(sum.data(), to.at(nb, out));
      to.save(nb, out, {});
    }
  });
}

// In f32 along rows and over a few images, which the number of threads does not change; then in
// f64.
void grad_weight_from(const ConvProblem& d, const float* gy, const float* x,
                      const ConvPrologue& prologue, float* gw) {
  const Window window(d);
  const Before before(prologue, d.c);
  const Planes gs(gy, d.c, d.p * d.q), xs(x, d.c, d.h * d.w);
  const std::vector<int64_t> offsets = window.offsets();
  const int64_t blocks = blocks_of(d.c), taps = d.r * d.s, pieces = (d.n + kImages - 1) / kImages;
  std::vector<float> parts(static_cast<size_t>(pieces * blocks * taps * kBlock));
  parallel_for(pieces * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch g_buffer(gs.buffer()), x_buffer(xs.buffer());
    std::vector<float> around(static_cast<size_t>(window.size()));
    for (int64_t pb = begin; pb < end; ++pb) {
      const int64_t piece = pb / blocks, b = pb % blocks;
      float* sum = parts.data() + pb * taps * kBlock;
      for (int64_t n = piece * kImages; n < std::min(d.n, (piece + 1) * kImages); ++n) {
        const float* g = gs.load(n * blocks + b, g_buffer);
        window.fill(xs.load(n * blocks + b, x_buffer), before.of(b), around.data());
        for (int64_t p = 0; p < d.p; ++p, g += d.q * kBlock) {
          const float* row = around.data() + p * d.stride_h * window.row();
          int64_t t = 0;
          for (; t + 9 <= taps; t += 9)
            weight_row<9>(window, g, row, offsets.data() + t, sum + t * kBlock);
          for (; t < taps; ++t) weight_row<1>(window, g, row, offsets.data() + t, sum + t * kBlock);
        }
      }
    }
  });
  for (int64_t c = 0; c < d.c; ++c)
    for (int64_t t = 0; t < taps; ++t) {
      double total = 0;
      for (int64_t piece = 0; piece < pieces; ++piece)
        total += static_cast<double>(parts[static_cast<size_t>(
            ((piece * blocks + c / kBlock) * taps + t) * kBlock + c % kBlock)]);
      gw[c * taps + t] = static_cast<float>(total);
    }
}
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  grad_weight_from(d, gy, x, {}, gw);
}

}  // namespace mtcki::conv_depthwise

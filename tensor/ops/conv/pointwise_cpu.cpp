// 1x1 convolution at stride 1 of plain f32 activations, for channel counts that fill no whole
// blocks: oneDNN would reorder both activations around every call. Of every image a product of
// matrices on the pixels where they lie,
//
//   y[k, p] = sum over c of w[k, c] x[c, p]        gw[k, c] += sum over p of gy[k, p] x[c, p]
//
// with vectors along the pixels, in the weight gradient along the inputs. Some pixels of all inputs
// are copied in the order in which the kernel reads them, from and to whole rows of memory.
#include <algorithm>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/kernels/transpose.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/parallel.h"

namespace mtcki::conv_pointwise {

namespace {

using V = FloatVector;
constexpr int kWidth = Simd<float>::width;
constexpr int kRows = kSimdRegisters == 32 ? 10 : 6;  // outputs of a tile, two vectors wide

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Pixels of so many channels that fit into half of a second cache.
int64_t panel_pixels(int64_t channels) {
  return std::clamp<int64_t>((1 << 15) / channels / (2 * kWidth) * 2 * kWidth, 2 * kWidth, 256);
}

// acc[r][v] = sum over i of a[r * a_row + i * a_step] b[v * b_vector + i * b_step, a vector]
template <int kVectors>
[[gnu::always_inline]] inline void product(int64_t depth, const float* a, int64_t a_row,
                                           int64_t a_step, const float* b, int64_t b_vector,
                                           int64_t b_step, V (&acc)[kRows][kVectors]) {
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int v = 0; v < kVectors; ++v)
      acc[r][v] = V{};
  for (int64_t i = 0; i < depth; ++i, a += a_step, b += b_step) {
    V in[kVectors];
    MTCKI_UNROLL for (int v = 0; v < kVectors; ++v) in[v] = load_once(b + v * b_vector);
    MTCKI_UNROLL for (int r = 0; r < kRows; ++r) {
      const V factor = broadcast(a[r * a_row]);
      MTCKI_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] += factor * in[v];
    }
  }
}

// One product for all images: `out` channels from `in` channels; w[k * out_step + c * in_step].
struct Product {
  int64_t images, in, out, pixels, out_step, in_step;
};

// [group of kRows outputs][in][output], zeros past the last one.
void pack_weights(const Product& d, const float* w, float* to) {
  for (int64_t k = 0; k < d.out; k += kRows)
    for (int64_t c = 0; c < d.in; ++c)
      for (int64_t r = k; r < k + kRows; ++r)
        *to++ = r < d.out ? w[r * d.out_step + c * d.in_step] : 0.0f;
}

// Output channels from k on of kVectors vectors of pixels from y[at] on.
template <int kVectors>
void tile(const Product& d, const float* w, const float* panel, int64_t k,
          const ConvEpilogue& epilogue, int64_t at, float* y) {
  V acc[kRows][kVectors];
  product(d.in, w, 1, kRows, panel, kWidth, kVectors * kWidth, acc);
  const bool tail = epilogue.any();
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r, ++k, at += d.pixels) {
    if (k == d.out) return;
    MTCKI_UNROLL for (int v = 0; v < kVectors; ++v) {
      V out = acc[r][v];
      if (tail) {
        if (epilogue.bias) out += epilogue.bias[k];
        if (epilogue.scale) out = out * epilogue.scale[k] + epilogue.shift[k];
        if (epilogue.residual) out += load(epilogue.residual + at + v * kWidth);
        if (epilogue.relu) out = out < V{} ? V{} : out;
      }
      store(y + at + v * kWidth, out);
    }
  }
}

void multiply(const Product& d, const float* x, const float* w, const ConvEpilogue& epilogue,
              float* y) {
  constexpr int64_t kPixels = 2 * kWidth;
  const int64_t group = d.in * kRows, most = panel_pixels(d.in), panels = ceil_div(d.pixels, most);
  const Scratch packed(static_cast<size_t>(ceil_div(d.out, kRows) * group) * sizeof(float));
  pack_weights(d, w, packed.as());
  parallel_for(d.images * panels, 1, [&](int64_t begin, int64_t end) {
    const Scratch panel(static_cast<size_t>(d.in * most) * sizeof(float));
    for (int64_t t = begin; t < end; ++t) {
      const int64_t n = t / panels, first = t % panels * most;
      const int64_t pixels = std::min(most, d.pixels - first);
      const float* from = x + n * d.in * d.pixels + first;
      for (int64_t c = 0; c < d.in; ++c, from += d.pixels)  // [tile][in][pixel]
        for (int64_t p = 0; p < pixels; p += kWidth) {
          const int64_t left = p % kPixels, width = std::min(kPixels, pixels - p + left);
          store(panel.as() + (p - left) * d.in + c * width + left, load(from + p));
        }
      for (int64_t k = 0; k < d.out; k += kRows)
        for (int64_t p = 0; p < pixels; p += kPixels)
          (pixels - p >= kPixels ? tile<2> : tile<1>)(d, packed.as() + k / kRows * group,
                                                      panel.as() + p * d.in, k, epilogue,
                                                      (n * d.out + k) * d.pixels + first + p, y);
    }
  });
}

// sum[r][c] += for kRows outputs and kVectors vectors of inputs.
template <int kVectors>
void add_tile(int64_t depth, const float* gy, int64_t pixels, const float* panel, float* sum,
              int64_t row) {
  V acc[kRows][kVectors];
  product(depth, gy, pixels, 1, panel, depth * kWidth, kWidth, acc);
  MTCKI_UNROLL for (int r = 0; r < kRows; ++r) MTCKI_UNROLL for (int v = 0; v < kVectors; ++v) {
    float* to = sum + r * row + v * kWidth;
    store(to, load(to) + acc[r][v]);
  }
}

}  // namespace

bool applies(const ConvProblem& d, ConvPass pass) {
  if (pass == ConvPass::grad_weight && d.h * d.w < 8 * kWidth) return false;  // a short sum
  return d.r == 1 && d.s == 1 && d.stride_h == 1 && d.stride_w == 1 && d.pad_h == 0 &&
         d.pad_w == 0 && d.groups == 1 && !(is_blocked(d.c) && is_blocked(d.k)) && d.c >= kRows &&
         d.k >= kRows && d.h * d.w % kWidth == 0;
}

void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y) {
  multiply({d.n, d.c, d.k, d.h * d.w, d.c, 1}, x, w, epilogue, y);
}

void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx) {
  multiply({d.n, d.k, d.c, d.h * d.w, 1, d.c}, gy, w, {}, gx);
}

// In f32 over a few images, which the number of threads does not change; then in f64. The last
// group of outputs begins early enough to be whole.
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw) {
  const int64_t pixels = d.h * d.w, most = panel_pixels(d.c);
  const int64_t groups = ceil_div(d.k, kRows), row = ceil_div(d.c, kWidth) * kWidth;
  const int64_t images = ceil_div(d.n, 16), pieces = ceil_div(d.n, images);
  const int64_t size = groups * kRows * row;
  const auto first_of = [&](int64_t group) { return std::min(group * kRows, d.k - kRows); };
  const Scratch parts(static_cast<size_t>(pieces * size) * sizeof(float));
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    const Scratch panel(static_cast<size_t>(row * most) * sizeof(float));
    std::fill(parts.as() + begin * size, parts.as() + end * size, 0.0f);
    for (int64_t n = begin * images; n < std::min(d.n, end * images); ++n)
      for (int64_t p = 0; p < pixels; p += most) {
        const int64_t depth = std::min(most, pixels - p);
        for (int64_t c = 0; c < d.c; c += kWidth)  // [vector of inputs][pixel][input]
          planes_to_lanes<kWidth>(x + (n * d.c + c) * pixels + p, pixels, d.c - c, depth,
                                  panel.as() + c * depth);
        for (int64_t g = 0; g < groups; ++g) {
          const float* from = gy + (n * d.k + first_of(g)) * pixels + p;
          for (int64_t r = kRows; r < 2 * kRows; ++r)  // the next group: six rows are no stream
            for (int64_t i = 0; i < depth; i += 16) __builtin_prefetch(from + r * pixels + i);
          for (int64_t c = 0; c < row; c += 2 * kWidth)
            (row - c > kWidth ? add_tile<2>
                              : add_tile<1>)(depth, from, pixels, panel.as() + c * depth,
                                             parts.as() + n / images * size + g * kRows * row + c,
                                             row);
        }
      }
  });
  std::vector<double> total(static_cast<size_t>(size));
  for (int64_t at = 0; at < pieces * size; at += size)
    for (int64_t i = 0; i < size; ++i)
      total[static_cast<size_t>(i)] += static_cast<double>(parts.as()[at + i]);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < d.c; ++c)
        gw[(first_of(g) + r) * d.c + c] =
            static_cast<float>(total[static_cast<size_t>((g * kRows + r) * row + c)]);
}

}  // namespace mtcki::conv_pointwise

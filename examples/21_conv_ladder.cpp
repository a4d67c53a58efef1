// One 3x3 convolution from its formula to what the registers of a CPU can do, a rung at a time
// (docs/kernels.md). An argument is the number of rounds, of which the median counts.
// Expect: every rung agrees with the reference in f64: yes
#include <cstdio>
#include <vector>

#include "examples/ladder_cpu.h"
#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/matmul.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

// x [N,C,34,34], with the margin that the kernels of this file want, w [C,C,3,3], y [N,C,32,32]
constexpr int64_t kN = 8, kC = 64, kOut = 32, kIn = kOut + 2, kPlane = kOut * kOut;
constexpr int64_t kWidth = Simd<float>::width;
using V = FloatVector;

// 1. Each addition waits for the one before it: one product per latency of the adder.
void formula(const float* x, const float* w, float* y) {
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t k = 0; k < kC; ++k)
      for (int64_t i = 0; i < kOut; ++i)
        for (int64_t j = 0; j < kOut; ++j) {
          float sum = 0;
          for (int64_t c = 0; c < kC; ++c)
            for (int64_t tap = 0; tap < 9; ++tap)
              sum += x[((n * kC + c) * kIn + i + tap / 3) * kIn + j + tap % 3] *
                     w[(k * kC + c) * 9 + tap];
          *y++ = sum;
        }
}

// 2. The innermost loop runs along neighbours in memory whose sums do not wait for each other: the
// compiler takes a register of them at once. But every product loads its sum and stores it again.
void unit_stride(const float* x, const float* w, float* y) {
  std::fill(y, y + kN * kC * kPlane, 0.0f);
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t k = 0; k < kC; ++k, y += kPlane)
      for (int64_t c = 0; c < kC; ++c)
        for (int64_t tap = 0; tap < 9; ++tap) {
          const float weight = w[(k * kC + c) * 9 + tap];
          const float* from = x + ((n * kC + c) * kIn + tap / 3) * kIn + tap % 3;
          for (int64_t i = 0; i < kOut; ++i)
            for (int64_t j = 0; j < kOut; ++j) y[i * kOut + j] += weight * from[i * kIn + j];
        }
}

// 3. With patches as columns it is a matrix product, which the library has. The price: nine copies
// of each image, written and read once more.
void matrix_product(const Tensor& x, const Tensor& w, const Tensor& y) {
  const Tensor columns = Tensor::empty({kC * 9, kPlane}), rows = w.reshape({kC, kC * 9});
  for (int64_t n = 0; n < kN; ++n) {
    float* to = columns.data<float>();
    for (int64_t c = 0; c < kC; ++c)
      for (int64_t tap = 0; tap < 9; ++tap)
        for (int64_t i = 0; i < kOut; ++i, to += kOut)
          std::copy_n(x.data<float>() + ((n * kC + c) * kIn + i + tap / 3) * kIn + tap % 3, kOut,
                      to);
    y.slice(n, n + 1).copy_(matmul(rows, columns).reshape({1, kC, kOut, kOut}));
  }
}

// Below, x and y are blocked, [N][C / kWidth][row][column][kWidth]: a register is kWidth channels
// of one pixel. Where those of (i, j) in block b of channels begin, in images of size x size:
int64_t at(int64_t n, int64_t b, int64_t i, int64_t j, int64_t size) {
  return (((n * kC / kWidth + b) * size + i) * size + j) * kWidth;
}

// 4. The sums of kPixels pixels x 2 kWidth output channels stay in registers: two loads of weights
// and kPixels broadcasts for 2 kPixels products.
void in_registers(const float* x, const float* w, float* y) {
  constexpr int64_t kPixels = kSimdRegisters / 4, kGroup = 2 * kWidth;
  std::vector<float> packed(kC * kC * 9);  // in the order in which they are read
  for (int64_t k = 0; k < kC; ++k)
    for (int64_t c = 0; c < kC; ++c)
      for (int64_t tap = 0; tap < 9; ++tap)
        packed[static_cast<size_t>(((k / kGroup * 9 + tap) * kC + c) * kGroup + k % kGroup)] = *w++;
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t k = 0; k < kC; k += kGroup)
      for (int64_t i = 0; i < kOut; ++i)
        for (int64_t j = 0; j < kOut; j += kPixels) {
          V sum[kPixels][2] = {};
          const float* weights = packed.data() + k * kC * 9;
          for (int64_t tap = 0; tap < 9; ++tap)
            for (int64_t b = 0; b < kC / kWidth; ++b) {
              const float* from = x + at(n, b, i + tap / 3, j + tap % 3, kIn);
              for (int64_t c = 0; c < kWidth; ++c, weights += kGroup) {
                const V w0 = load_once(weights), w1 = load_once(weights + kWidth);
                MTCKI_UNROLL for (int64_t p = 0; p < kPixels; ++p) {
                  sum[p][0] += w0 * from[p * kWidth + c];
                  sum[p][1] += w1 * from[p * kWidth + c];
                }
              }
            }
          for (int64_t p = 0; p < kPixels; ++p)
            for (int64_t half = 0; half < 2; ++half)
              store(y + at(n, k / kWidth + half, i, j + p, kOut), sum[p][half]);
        }
}

}  // namespace

int main(int argc, char** argv) {
  const Tensor image = randn({kN, kC, kOut, kOut}, Rng{21, rng_stream("x"), 0});
  const Tensor w = mul(randn({kC, kC, 3, 3}, Rng{21, rng_stream("w"), 0}), 1.0 / 24);
  const Tensor reference = conv2d(image.to(DType::f64), w.to(DType::f64), {}, {1, 1});
  const Tensor x = ladder::with_margin(image), x_blocked = x.to(Layout::blocked);
  const Tensor y = Tensor::empty(reference.shape()), y_blocked = y.to(Layout::blocked);
  const float *px = x.data<float>(), *pb = x_blocked.data<float>(), *pw = w.data<float>();
  const int all = num_threads();
  math_settings().winograd = false;  // that is the next example
  const auto library = [&, image_blocked = image.to(Layout::blocked)] {
    return conv2d(image_blocked, w, {}, {1, 1});
  };
  const bool right =
      ladder::climb({{"1 the formula", [&] { return formula(px, pw, y.data<float>()), y; }},
                     {"2 unit stride", [&] { return unit_stride(px, pw, y.data<float>()), y; }},
                     {"3 matrix product", [&] { return matrix_product(x, w, y), y; }},
                     {"4 sums in registers",
                      [&] { return in_registers(pb, pw, y_blocked.data<float>()), y_blocked; }},
                     {"conv2d of the library, direct", library},
                     {"conv2d of the library, direct", library, all}},
                    2e-9 * kN * kPlane * kC * kC * 9, reference, ladder::rounds_of(argc, argv));
  std::printf("every rung agrees with the reference in f64: %s\n", right ? "yes" : "no");
  return right ? 0 : 1;
}

// The next rung after 21: fewer multiplications. Winograd's minimal filtering makes 2x2 outputs of a
// 3x3 convolution from 16 products instead of 36; what is left of them are matrix products
// (docs/kernels.md). An argument is the number of rounds, of which the median counts.
// Expect: every rung agrees with the reference in f64: yes
#include <cstdio>

#include "examples/ladder_cpu.h"
#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/matmul.h"
#include "tensor/profiler.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

// x [N,C,34,34], with the margin that winograd() wants, w [C,C,3,3], y [N,C,32,32]
constexpr int64_t kN = 8, kC = 64, kOut = 32, kIn = kOut + 2;
constexpr int64_t kWidth = Simd<float>::width;
using V = FloatVector;

// Below, x and y are blocked, [N][C / kWidth][row][column][kWidth]: a register is kWidth channels
// of one pixel. Where those of (i, j) in block b of channels begin, in images of size x size:
int64_t at(int64_t n, int64_t b, int64_t i, int64_t j, int64_t size) {
  return (((n * kC / kWidth + b) * size + i) * size + j) * kWidth;
}

// 5. Winograd's F(2x2, 3x3): 16 products make four outputs, instead of 36. In one dimension
//   y = A^T [(G g) * (B^T d)]     two outputs y, three taps g, four pixels d
void of_pixels(const V* d, V* v) {
  v[0] = d[0] - d[2], v[1] = d[1] + d[2], v[2] = d[2] - d[1], v[3] = d[1] - d[3];
}
void of_taps(const V* g, V* u) {
  u[0] = g[0], u[1] = 0.5f * (g[0] + g[1] + g[2]), u[2] = 0.5f * (g[0] - g[1] + g[2]), u[3] = g[2];
}
void to_outputs(const V* m, V* y) { y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3]; }

// f along the columns, then along the rows.
template <int From, int To, class F>
void in_both(const V (&from)[From][From], V (&to)[To][To], const F& f) {
  V half[To][From], column[From], out[To];
  for (int j = 0; j < From; ++j) {
    for (int i = 0; i < From; ++i) column[i] = from[i][j];
    f(column, out);
    for (int i = 0; i < To; ++i) half[i][j] = out[i];
  }
  for (int i = 0; i < To; ++i) f(half[i], to[i]);
}

Tensor transformed(const float* w) {  // [16][C][C]: input channel, output channel
  const Tensor u = Tensor::empty({16, kC, kC});
  for (int64_t k = 0; k < kC; k += kWidth)
    for (int64_t c = 0; c < kC; ++c) {
      V g[3][3], points[4][4];
      for (int64_t i = 0; i < 9 * kWidth; ++i)
        g[i / kWidth / 3][i / kWidth % 3][i % kWidth] =
            w[((k + i % kWidth) * kC + c) * 9 + i / kWidth];
      in_both(g, points, of_taps);
      for (int64_t i = 0; i < 16; ++i)
        store(u.data<float>() + (i * kC + c) * kC + k, points[i / 4][i % 4]);
    }
  return u;
}

// 16 products of matrices [tile, channel], for as many tiles as keep them in the second-level cache.
void winograd(const float* x, const float* w, float* y) {
  constexpr int64_t kAcross = kOut / 2, kTiles = 4 * kAcross, kStrips = kAcross / 4;
  const Tensor u = transformed(w);
  parallel_for(kN * kStrips, 1, [&](int64_t begin, int64_t end) {
    const Tensor v = Tensor::empty({16, kTiles, kC});
    for (int64_t strip = begin; strip < end; ++strip) {
      const int64_t n = strip / kStrips, row = strip % kStrips * 8;
      for (int64_t b = 0; b < kC / kWidth; ++b)
        for (int64_t t = 0; t < kTiles; ++t) {
          V d[4][4], points[4][4];
          for (int64_t i = 0; i < 16; ++i)
            d[i / 4][i % 4] =
                load(x + at(n, b, row + t / kAcross * 2 + i / 4, t % kAcross * 2 + i % 4, kIn));
          in_both(d, points, of_pixels);
          for (int64_t i = 0; i < 16; ++i)
            store(v.data<float>() + (i * kTiles + t) * kC + b * kWidth, points[i / 4][i % 4]);
        }
      const Tensor m = matmul(v, u);
      for (int64_t b = 0; b < kC / kWidth; ++b)
        for (int64_t t = 0; t < kTiles; ++t) {
          V points[4][4], out[2][2];
          for (int64_t i = 0; i < 16; ++i)
            points[i / 4][i % 4] = load(m.data<float>() + (i * kTiles + t) * kC + b * kWidth);
          in_both(points, out, to_outputs);
          for (int64_t i = 0; i < 4; ++i)
            store(y + at(n, b, row + t / kAcross * 2 + i / 2, t % kAcross * 2 + i % 2, kOut),
                  out[i / 2][i % 2]);
        }
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  const Tensor plain = randn({kN, kC, kOut, kOut}, Rng{22, rng_stream("x"), 0});
  const Tensor w = mul(randn({kC, kC, 3, 3}, Rng{22, rng_stream("w"), 0}), 1.0 / 24);
  const Tensor reference = conv2d(plain.to(DType::f64), w.to(DType::f64), {}, {1, 1});
  const Tensor x = ladder::with_margin(plain).to(Layout::blocked);
  const Tensor image = plain.to(Layout::blocked);
  const Tensor y = Tensor::empty_like(image);
  const int all = num_threads();
  const auto library = [&] { return conv2d(image, w, {}, {1, 1}); };
  const auto direct = [&] {
    math_settings().winograd = false;
    const Tensor out = library();
    math_settings().winograd = true;
    return out;
  };
  const auto ours = [&] { return winograd(x.data<float>(), w.data<float>(), y.data<float>()), y; };
  constexpr double kFour = 3e-5;  // the points of F(4x4) reach to 2 and cost digits
  const bool right = ladder::climb(
      {{"conv2d of the library, direct", direct},
       {"5 Winograd F(2x2, 3x3)", ours},
       {"6 the same on all threads", ours, all},
       {.name = "conv2d of the library, F(4x4, 3x3)", .run = library, .tolerance = kFour},
       {"conv2d of the library, F(4x4, 3x3)", library, all, 0, kFour}},
      2e-9 * kN * kOut * kOut * kC * kC * 9, reference, ladder::rounds_of(argc, argv));
  set_num_threads(1);
  profiler::start();  // what it sees are the library's ops, here the matrix products
  const double us = 1e6 * ladder::seconds_of(ours);
  profiler::stop();
  double products = 0;
  for (const profiler::Event& e : profiler::events()) products += e.self_us;
  std::printf("of rung 5 the matrix products take %.0f %%\n", 100 * products / us);
  std::printf("every rung agrees with the reference in f64: %s\n", right ? "yes" : "no");
  return right ? 0 : 1;
}

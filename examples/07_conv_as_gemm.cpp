// A convolution is a matrix product: unfold the patches of the image into columns, multiply by the
// weights. The same numbers come from every kernel of conv2d; the times differ.
// Expect: largest difference 0.0000
#include <chrono>
#include <cstdio>

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

// im2col for kernel 3, stride 1, padding 1: columns [C*9, H*W] of one image [C,H,W].
Tensor unfold(const Tensor& image, int64_t c, int64_t h, int64_t w) {
  Tensor columns = Tensor::zeros({c * 9, h * w});
  const float* in = image.data<float>();
  float* out = columns.data<float>();
  for (int64_t k = 0; k < c; ++k)
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t s = 0; s < 3; ++s, out += h * w)
        for (int64_t y = 0; y < h; ++y)
          for (int64_t x = 0; x < w; ++x) {
            const int64_t iy = y + r - 1, ix = x + s - 1;
            if (iy >= 0 && iy < h && ix >= 0 && ix < w) out[y * w + x] = in[(k * h + iy) * w + ix];
          }
  return columns;
}

Tensor conv_as_gemm(const Tensor& x, const Tensor& weight) {
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3), k = weight.size(0);
  const Tensor rows = weight.reshape({k, c * 9});
  Tensor y = Tensor::empty({n, k, h, w});
  for (int64_t i = 0; i < n; ++i)
    y.slice(i, i + 1).copy_(matmul(rows, unfold(x.slice(i, i + 1), c, h, w)).reshape({1, k, h, w}));
  return y;
}

template <class F>
double best_ms(const F& f) {
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
    best = std::min(best, ms.count());
  }
  return best;
}

}  // namespace

int main() {
  const Tensor x = randn({16, 32, 32, 32}, Rng{0, rng_stream("x"), 0});
  const Tensor weight = mul(randn({32, 32, 3, 3}, Rng{0, rng_stream("w"), 0}), 0.06);
  const double gflop = 2e-9 * 16 * 32 * 32 * 32 * 32 * 9;

  const Tensor reference = conv_as_gemm(x, weight);
  const double gemm_ms = best_ms([&] { conv_as_gemm(x, weight); });
  std::printf("%-28s %8.2f ms  %6.1f GFLOP/s\n", "unfold + matmul", gemm_ms, gflop / gemm_ms * 1e3);
  double worst = 0;
  for (const CpuKernels kernels :
       {CpuKernels::builtin, CpuKernels::onednn, CpuKernels::automatic}) {
    if (kernels == CpuKernels::onednn && !onednn_available()) continue;
    set_cpu_kernels(kernels);
    const Tensor y = conv2d(x, weight, {}, {1, 1});
    for (float d : abs(sub(y.plain(), reference)).to_vector<float>())
      worst = std::max(worst, static_cast<double>(d));
    const double ms = best_ms([&] { conv2d(x, weight, {}, {1, 1}); });
    const char* name = kernels == CpuKernels::builtin  ? "conv2d, built-in kernels"
                       : kernels == CpuKernels::onednn ? "conv2d, oneDNN"
                                                       : "conv2d, as chosen by itself";
    std::printf("%-28s %8.2f ms  %6.1f GFLOP/s\n", name, ms, gflop / ms * 1e3);
  }
  std::printf("largest difference %.4f\n", worst);
}

// A 3x3 convolution on a GPU from a loop per thread to sums in registers, a rung at a time
// (docs/kernels.md). Without a GPU the kernels run on the emulated one, which checks values.
// Expect: every rung agrees with the reference in f64: yes
#include "examples/ladder_cuda.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/index.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

// x [n, 34, 34, C], with its margin, y [n, 32, 32, C], taps [9, input channel, output channel]
constexpr int kC = 64, kOut = 32, kIn = kOut + 2;

// 1 and 2. A thread per output. The only difference is which outputs the 32 threads of a warp have:
// 32 pixels of one channel, whose inputs and outputs lie 4 C bytes from each other, or 32 channels of
// one pixel, which read one input, 32 weights in a row and write 32 outputs in a row.
template <bool kNeighbours>
__global__ void one_output(const float* x, const float* taps, float* y, int64_t outputs) {
  MTCKI_GRID_LOOP(i, outputs) {
    const int64_t pixels = outputs / kC;
    const int64_t k = kNeighbours ? i % kC : i / pixels, pixel = kNeighbours ? i / kC : i % pixels;
    const int64_t image = pixel / (kOut * kOut), row = pixel / kOut % kOut, column = pixel % kOut;
    float sum = 0;
    for (int tap = 0; tap < 9; ++tap) {
      const float* from = x + ((image * kIn + row + tap / 3) * kIn + column + tap % 3) * kC;
      for (int c = 0; c < kC; ++c) sum += from[c] * taps[(tap * kC + c) * kC + k];
    }
    y[pixel * kC + k] = sum;
  }
}

template <int N>
struct alignas(4 * N) Pack {  // of 4 floats: one load of 16 bytes
  float v[N];
};

// 3 and 4. A block has Rows x 16 pixels and 16 N channels, a thread Rows pixels below each other and
// N channels. What several threads need comes to shared memory once, kStep input channels at a time.
// With one output to a thread each product still takes two loads from there; with 4 x 4 of them in
// registers 16 products take five, and one of those has four floats.
template <int Rows, int N>
__global__ void tile(const float* x, const float* taps, float* y) {
  constexpr int kStep = 8, kColumns = 16, kThreads = 256;
  __shared__ float pixels[Rows + 2][kColumns + 2][kStep];
  __shared__ Pack<N> weights[9][kStep][16];
  const int t = static_cast<int>(threadIdx.x), own_k = t % 16, own_column = t / 16;
  constexpr int kGroups = kC / (16 * N);  // of output channels
  const int64_t row = blockIdx.y * Rows, column = blockIdx.x * kColumns;
  const int64_t image = blockIdx.z / kGroups, k = blockIdx.z % kGroups * 16 * N;
  Pack<N> sum[Rows] = {};
  for (int c0 = 0; c0 < kC; c0 += kStep) {
    __syncthreads();  // nobody reads the step before any more
    for (int i = t; i < (Rows + 2) * (kColumns + 2) * kStep; i += kThreads) {
      const int c = i % kStep, j = i / kStep % (kColumns + 2), r = i / kStep / (kColumns + 2);
      pixels[r][j][c] = x[((image * kIn + row + r) * kIn + column + j) * kC + c0 + c];
    }
    for (int i = t; i < 9 * kStep * 16; i += kThreads) {
      const int c = i / 16 % kStep, tap = i / 16 / kStep;
      weights[tap][c][i % 16] =
          *reinterpret_cast<const Pack<N>*>(taps + (tap * kC + c0 + c) * kC + k + i % 16 * N);
    }
    __syncthreads();
    for (int tap = 0; tap < 9; ++tap) {
      MTCKI_UNROLL for (int c = 0; c < kStep; ++c) {
        const Pack<N> w = weights[tap][c][own_k];
        MTCKI_UNROLL for (int r = 0; r < Rows; ++r) {
          const float pixel = pixels[r + tap / 3][own_column + tap % 3][c];
          MTCKI_UNROLL for (int i = 0; i < N; ++i) sum[r].v[i] += pixel * w.v[i];
        }
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    *reinterpret_cast<Pack<N>*>(y + ((image * kOut + row + r) * kOut + column + own_column) * kC +
                                k + own_k * N) = sum[r];
}

}  // namespace

int main() {
  if (!cuda::availability().usable) {
    std::printf("skipped: %s\n", cuda::availability().why.c_str());
    return 0;
  }
  cuda::use_device(0);
  const Device gpu = Device::cuda(0);
  const int64_t n = cuda::is_emulated() ? 2 : 128;
  const Tensor image = randn({n, kC, kOut, kOut}, Rng{24, rng_stream("x"), 0});
  const Tensor w = mul(randn({kC, kC, 3, 3}, Rng{24, rng_stream("w"), 0}), 1.0 / 24);
  const Tensor last = image.slice(n - 1, n).to(DType::f64);  // the reference is slow
  const Tensor reference = conv2d(last, w.to(DType::f64), {}, {1, 1});
  const auto on_gpu = [&](const Tensor& t) { return t.to(Layout::channels_last).to(gpu); };
  const Tensor x = on_gpu(ladder::with_margin(image));
  const Tensor taps = permute(w, {2, 3, 1, 0}).to(gpu);
  const Tensor y = Tensor::empty({n, kC, kOut, kOut}, DType::f32, gpu, Layout::channels_last);
  const double roof = ladder::roof_of("f32_gemm_gflops", 4096);

  const auto one = [&](auto kernel) {
    return [&, kernel] {
      cuda::launch(kernel, cuda::grid_for(y.numel()), dim3(cuda::kThreads), 0, x.data<float>(),
                   taps.data<float>(), y.data<float>(), y.numel());
      return y.slice(n - 1, n);
    };
  };
  const auto tiled = [&](auto kernel, int rows, int channels) {
    const dim3 grid(kOut / 16, static_cast<unsigned>(kOut / rows),
                    static_cast<unsigned>(n * (kC / channels)));
    return [&, kernel, grid] {
      cuda::launch(kernel, grid, dim3(256), 0, x.data<float>(), taps.data<float>(),
                   y.data<float>());
      return y.slice(n - 1, n);
    };
  };
  const auto library = [&, gx = on_gpu(image), gw = on_gpu(w)] {
    return conv2d(gx, gw, {}, {1, 1}).slice(n - 1, n);
  };
  const auto rung = [&](const char* name, const std::function<Tensor()>& run) {
    return ladder::Rung{.name = name, .run = run, .roof = roof};
  };
  const bool right = ladder::climb(
      {rung("1 a pixel per thread of a warp", one(one_output<false>)),
       rung("2 a channel per thread of a warp", one(one_output<true>)),
       rung("3 tiles in shared memory", tiled(tile<1, 1>, 1, 16)),
       rung("4 vectors, 4 x 4 sums in registers", tiled(tile<4, 4>, 4, 64)),
       rung("conv2d of the library, f32", library)},
      2e-9 * static_cast<double>(n * kOut * kOut) * kC * kC * 9, "GFLOP/s", reference);
  std::printf("every rung agrees with the reference in f64: %s\n", right ? "yes" : "no");
  return right ? 0 : 1;
}

// The rung after 24: tensor cores, which multiply small matrices of bf16 in one instruction of a warp
// (docs/kernels.md). For each tap the convolution is a matrix product of shifted pixels and weights.
// Without a GPU the kernel runs on the emulated one, which checks values.
// Expect: every rung agrees with the reference in f64: yes
#include "examples/ladder_cuda.h"
#include "tensor/cuda/mma.cuh"
#include "tensor/ops/conv/conv.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

constexpr int kC = 64, kOut = 32, kIn = kOut + 2;  // channels, of x as of y; pixels
constexpr int kRows = 8, kColumns = 16, kWarps = kRows / 2;
struct alignas(16) Eight {  // channels, in one load
  bfloat16 v[8];
};
constexpr int kEights = kC / 8;

// 5. A warp multiplies [16 pixels, 16 channels] by [16, 8] in one instruction, where a thread of
// rung 4 does one product. A block has 8 x 16 pixels and all output channels, a warp two rows of it:
// what it loads of the weights serves both. x [n, 34, 34, C], with its margin, w [output channel, 9,
// C], y [n, 32, 32, C].
__global__ void tensor_cores(const Eight* x, const Eight* w, bfloat16* y) {
  // Pixels are 144 bytes apart, not 128: eight of them, which are read at a time, lie in different
  // banks.
  __shared__ Eight pixels[kRows + 2][kColumns + 2][kEights + 1], weights[kC][kEights + 1];
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  const int64_t row = blockIdx.y * kRows, column = blockIdx.x * kColumns, image = blockIdx.z;
  for (int i = t; i < (kRows + 2) * (kColumns + 2) * kEights; i += 32 * kWarps) {
    const int c = i % kEights, j = i / kEights % (kColumns + 2), r = i / kEights / (kColumns + 2);
    pixels[r][j][c] = x[((image * kIn + row + r) * kIn + column + j) * kEights + c];
  }
  float sum[2][kEights][4] = {};
  for (int tap = 0; tap < 9; ++tap) {
    __syncthreads();  // nobody reads the tap before any more
    for (int i = t; i < kC * kEights; i += 32 * kWarps) {
      const int k = i / kEights, c = i % kEights;
      weights[k][c] = w[(k * 9 + tap) * kEights + c];
    }
    __syncthreads();
    for (int c = 0; c < kEights; c += 2) {  // 16 input channels
      // Each lane names one row of 16 bytes, of four matrices of eight; tensor/cuda/mma.cuh says
      // which, and which elements it gets.
      uint32_t a[2][4], b[4];
      for (int r = 0; r < 2; ++r) {
        const Eight* pixel = pixels[2 * warp + r + tap / 3][lane % 16 + tap % 3];
        cuda::load_matrices(a[r], cuda::shared_address(pixel + c + lane / 16));
      }
      MTCKI_UNROLL for (int k = 0; k < kEights; k += 2) {  // 16 output channels
        const Eight* channel = weights[8 * (k + lane / 16) + lane % 8];
        cuda::load_matrices(b, cuda::shared_address(channel + c + lane / 8 % 2));
        MTCKI_UNROLL for (int r = 0; r < 2; ++r) {
          cuda::mma_bf16(sum[r][k], a[r], b[0], b[1]);
          cuda::mma_bf16(sum[r][k + 1], a[r], b[2], b[3]);
        }
      }
    }
  }
  // A lane has two channels of the pixels lane / 4 and lane / 4 + 8.
  for (int r = 0; r < 2; ++r)
    for (int k = 0; k < kEights; ++k)
      for (int half = 0; half < 2; ++half) {
        const int64_t j = column + lane / 4 + 8 * half, i = row + 2 * warp + r;
        const bfloat16 two[2] = {bfloat16(sum[r][k][2 * half]), bfloat16(sum[r][k][2 * half + 1])};
        memcpy(y + ((image * kOut + i) * kOut + j) * kC + 8 * k + lane % 4 * 2, two, 4);
      }
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
  const Tensor image = randn({n, kC, kOut, kOut}, Rng{25, rng_stream("x"), 0}, DType::bf16);
  const Tensor w =
      mul(randn({kC, kC, 3, 3}, Rng{25, rng_stream("w"), 0}), 1.0 / 24).to(DType::bf16);
  const Tensor last = image.slice(n - 1, n).to(DType::f64);  // the reference is slow
  const Tensor reference = conv2d(last, w.to(DType::f64), {}, {1, 1});
  const auto on_gpu = [&](const Tensor& t) { return t.to(Layout::channels_last).to(gpu); };
  const Tensor x = on_gpu(ladder::with_margin(image)), gw = on_gpu(w);
  const Tensor y = Tensor::empty({n, kC, kOut, kOut}, DType::bf16, gpu, Layout::channels_last);
  const double roof = ladder::roof_of("bf16_gemm_gflops", 4096);

  const auto ours = [&] {
    cuda::launch(tensor_cores, dim3(kOut / kColumns, kOut / kRows, static_cast<unsigned>(n)),
                 dim3(32 * kWarps), 0, static_cast<const Eight*>(x.raw()),
                 static_cast<const Eight*>(gw.raw()), y.data<bfloat16>());
    return y.slice(n - 1, n);
  };
  const auto library = [&, gx = on_gpu(image)] {
    return conv2d(gx, gw, {}, {1, 1}).slice(n - 1, n);
  };
  constexpr double kRounding = 1.0 / 256;  // of results to bf16, and as much again
  const bool right = ladder::climb({{"5 tensor cores", ours, 1, roof, kRounding},
                                    {"conv2d of the library, bf16", library, 1, roof, kRounding}},
                                   2e-9 * static_cast<double>(n * kOut * kOut) * kC * kC * 9,
                                   "GFLOP/s", reference);
  std::printf("every rung agrees with the reference in f64: %s\n", right ? "yes" : "no");
  return right ? 0 : 1;
}

// The sum of many numbers on a GPU, a rung at a time: as much memory per second as the device can
// read is all there is to win (docs/kernels.md). No kernel uses atomics on floats, so each sum has
// one order of additions and repeats bit for bit. Without a GPU the kernels run on the emulated one,
// which checks values.
// Expect: every rung agrees with the sum in f64: yes, repeats bit for bit: yes
#include "examples/ladder_cuda.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

constexpr int kBlock = 256;
// A kernel leaves partial sums in `partial`, one per thread or one per block.
using Kernel = void (*)(const float* x, float* partial, int64_t n);

__device__ int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// 1. Each thread takes a piece, from its beginning to its end, as a thread of a CPU would. The 32
// threads of a warp read at the same time, far from each other: 32 transactions of memory for 32
// numbers, each of which brings a sector of 32 bytes for one number of 4.
__global__ void pieces(const float* x, float* partial, int64_t n) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t size = (n + threads - 1) / threads, begin = thread_of_grid() * size;
  const int64_t end = begin + size < n ? begin + size : n;
  float sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += x[i];
  partial[thread_of_grid()] = sum;
}

// 2. Neighbouring threads take neighbouring numbers: a warp reads 128 bytes in a row, four whole
// sectors. What is left to lose: a partial sum per thread, written and read once more.
__global__ void neighbours(const float* x, float* partial, int64_t n) {
  float sum = 0;
  MTCKI_GRID_LOOP(i, n) sum += x[i];
  partial[thread_of_grid()] = sum;
}

// 3. The threads of a block meet in shared memory. The upper half is added to the lower one, so the
// threads at work are neighbours, whole warps become idle, and no two of them use the same bank.
__global__ void shared_memory(const float* x, float* partial, int64_t n) {
  __shared__ float part[kBlock];
  const int t = static_cast<int>(threadIdx.x);
  float sum = 0;
  MTCKI_GRID_LOOP(i, n) sum += x[i];
  part[t] = sum;
  __syncthreads();
  for (int half = kBlock / 2; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    __syncthreads();  // outside of the condition: every thread has to come here
  }
  if (t == 0) partial[blockIdx.x] = part[0];
}

__device__ float sum_of_warp(float v) {  // in each lane
  for (int mask = 16; mask > 0; mask /= 2) v += __shfl_xor_sync(~0u, v, mask);
  return v;
}

// 4. 16 bytes per load: a quarter of the instructions for the same bytes, and more bytes on their way
// at a time. Warps add up through shuffles, from register to register: one barrier instead of nine.
__global__ void vectors(const float* x, float* partial, int64_t n) {
  __shared__ float part[kBlock / 32];
  const int t = static_cast<int>(threadIdx.x);
  const float4* fours = reinterpret_cast<const float4*>(x);
  float4 sums = make_float4(0, 0, 0, 0);
  MTCKI_GRID_LOOP(i, n / 4) {
    const float4 v = fours[i];
    sums = make_float4(sums.x + v.x, sums.y + v.y, sums.z + v.z, sums.w + v.w);
  }
  float sum = (sums.x + sums.y) + (sums.z + sums.w);
  if (blockIdx.x == 0 && t < n % 4) sum += x[n / 4 * 4 + t];  // what is left after the fours
  sum = sum_of_warp(sum);
  if (t % 32 == 0) part[t / 32] = sum;
  __syncthreads();
  if (t >= 32) return;
  sum = sum_of_warp(t < kBlock / 32 ? part[t] : 0);  // the whole first warp takes part
  if (t == 0) partial[blockIdx.x] = sum;
}

// The partial sums of one of these kernels, then their sum by one block.
Tensor sum_by(Kernel kernel, bool per_thread, const Tensor& x, const Tensor& partial) {
  const Tensor y = Tensor::empty({1}, DType::f32, x.device());
  const dim3 grid = cuda::grid_for(x.numel(), kBlock);
  cuda::launch(kernel, grid, dim3(kBlock), 0, x.data<float>(), partial.data<float>(), x.numel());
  cuda::launch(shared_memory, dim3(1), dim3(kBlock), 0, partial.data<float>(), y.data<float>(),
               int64_t{grid.x} * (per_thread ? kBlock : 1));
  return y;
}

}  // namespace

int main() {
  if (!cuda::availability().usable) {
    std::printf("skipped: %s\n", cuda::availability().why.c_str());
    return 0;
  }
  cuda::use_device(0);
  const Device gpu = Device::cuda(0);
  // More than the caches of a GPU hold; an odd number, so that something is left after the fours.
  const int64_t n = cuda::is_emulated() ? 100003 : (int64_t{1} << 27) + 3;
  const Tensor x = rand({n}, Rng{23, rng_stream("x"), 0}, DType::f32, gpu);
  const Tensor reference = sum(x.to(Device::cpu()).to(DType::f64)).reshape({1});
  // What the device copies per second, bytes read plus written.
  const double roof = ladder::roof_of("copy_gbs", 256);
  const auto rung = [&](const char* name, Kernel kernel, bool per_thread) {
    const int64_t threads = int64_t{cuda::grid_for(n, kBlock).x} * kBlock;
    const auto run = [=, partial = Tensor::empty({threads}, DType::f32, gpu)] {
      return sum_by(kernel, per_thread, x, partial);
    };
    return ladder::Rung{.name = name, .run = run, .roof = roof, .tolerance = 1e-6};
  };
  const std::vector<ladder::Rung> rungs{
      rung("1 a piece per thread", pieces, true),
      rung("2 neighbours read neighbours", neighbours, true),
      rung("3 blocks meet in shared memory", shared_memory, false),
      rung("4 vectors and shuffles", vectors, false),
      {.name = "sum of the library, in f64",
       .run = [&] { return sum(x).reshape({1}); },
       .roof = roof}};
  const bool right = ladder::climb(rungs, 4e-9 * static_cast<double>(n), "GB/s", reference);
  bool repeats = true;
  for (const ladder::Rung& r : rungs)
    repeats = repeats && identical(r.run().to(Device::cpu()), r.run().to(Device::cpu()));
  std::printf("every rung agrees with the sum in f64: %s, repeats bit for bit: %s\n",
              right ? "yes" : "no", repeats ? "yes" : "no");
  return right && repeats ? 0 : 1;
}

// The emulation of CUDA kernels: barriers, shuffles, shared memory; and that it finds the faults
// that it is there to find.
#include "tests/emulated/device/simt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"

namespace mtcki {
namespace {

using cuda::launch;
using testing::kGpu;

class Simt : public testing::CudaTest {
 protected:
  void TearDown() override { cuda::simt::set_shuffle(cuda::simt::kDefaultShuffle); }
};

// y[block] = sum of 128 elements of x, by halving in shared memory.
template <bool Barrier>
__global__ void block_sum(const float* x, float* y) {
  __shared__ float part[128];
  const int t = static_cast<int>(threadIdx.x);
  part[t] = x[blockIdx.x * 128 + threadIdx.x];
  if (Barrier) __syncthreads();
  for (int half = 64; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    __syncthreads();
  }
  if (t == 0) y[blockIdx.x] = part[0];
}

Tensor counting(int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0.0f);
  return Tensor::from(v, {n}).to(kGpu);
}

std::vector<float> block_sums(void (*kernel)(const float*, float*)) {
  const Tensor x = counting(5 * 128), y = Tensor::empty({5}, DType::f32, kGpu);
  launch(kernel, dim3(5), dim3(128), 0, x.data<float>(), y.data<float>());
  return y.to_vector<float>();
}

std::vector<float> expected_sums() {
  std::vector<float> sums;
  for (int block = 0; block < 5; ++block) {
    float sum = 0;
    for (int i = 0; i < 128; ++i) sum += static_cast<float>(block * 128 + i);
    sums.push_back(sum);
  }
  return sums;
}

TEST_F(Simt, BarriersAndSharedMemory) {
  EXPECT_EQ(block_sums(block_sum<true>), expected_sums());
  for (uint32_t seed = 1; seed < 6; ++seed) {
    cuda::simt::set_shuffle(seed);
    EXPECT_EQ(block_sums(block_sum<true>), expected_sums()) << "order " << seed;
  }
}

TEST_F(Simt, FindsAMissingBarrier) {
  bool wrong = block_sums(block_sum<false>) != expected_sums();
  for (uint32_t seed = 1; seed < 6; ++seed) {
    cuda::simt::set_shuffle(seed);
    wrong = wrong || block_sums(block_sum<false>) != expected_sums();
  }
  EXPECT_TRUE(wrong);
}

// Each warp passes its values on to the next one, with a shuffle between its write and its read. When
// all warps run in step, the missing barrier has no effect.
template <bool Barrier>
__global__ void to_the_next_warp(const float* x, float* y) {
  __shared__ float part[128];
  const unsigned t = threadIdx.x;
  part[t] = x[blockIdx.x * 128 + t];
  if (Barrier) __syncthreads();
  const float own = __shfl_xor_sync(~0u, x[blockIdx.x * 128 + t], 1);
  y[blockIdx.x * 128 + t] = part[(t + 32) % 128] + 0 * own;
}

TEST_F(Simt, FindsAMissingBarrierBetweenWarpCollectives) {
  float first = 0;  // other values each time: shared memory keeps those of before
  const auto right = [&](void (*kernel)(const float*, float*)) {
    const Tensor x = add(counting(128), first += 1000);
    const Tensor y = Tensor::empty({128}, DType::f32, kGpu);
    launch(kernel, dim3(1), dim3(128), 0, x.data<float>(), y.data<float>());
    const std::vector<float> got = y.to_vector<float>();
    for (size_t t = 0; t < 128; ++t)
      if (got[t] != first + static_cast<float>((t + 32) % 128)) return false;
    return true;
  };
  for (uint32_t seed = 0; seed < 8; ++seed) {
    cuda::simt::set_shuffle(seed);
    EXPECT_TRUE(right(to_the_next_warp<true>)) << "order " << seed;
    EXPECT_EQ(right(to_the_next_warp<false>), seed % 2 == 0) << "order " << seed;
  }
}

// An early kernel in which one thread, or all, do not wait for the one before.
template <int Waiting>
__global__ void early_kernel(float* x) {
  if (static_cast<int>(threadIdx.x) < Waiting) cuda::wait_for_previous();
  x[threadIdx.x] = 1;
}

TEST_F(Simt, AnEarlyLaunchWithoutAWaitEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Tensor x = Tensor::zeros({32}, DType::f32, kGpu);
  const auto run = [&](void (*kernel)(float*)) {
    cuda::launch_early(kernel, dim3(1), dim3(32), 0, x.data<float>());
    cuda::synchronize();
  };
  EXPECT_DEATH(run(early_kernel<0>), "never called wait_for_previous");
  EXPECT_DEATH(run(early_kernel<31>), "never called wait_for_previous");
  run(early_kernel<32>);
  EXPECT_EQ(x.slice(31, 32).item(), 1);
}

template <bool Loop>
__global__ void count_up(float* x, int64_t n) {
  MTCKI_GRID_LOOP(i, n) {
    x[i] = static_cast<float>(i);
    if (!Loop) return;
  }
}

// A grid-stride loop that makes one turn only.
TEST_F(Simt, GridsAreSmallerThanTheirWork) {
  const int64_t n = 5000;
  const auto last = [&](void (*kernel)(float*, int64_t)) {
    const Tensor x = Tensor::zeros({n}, DType::f32, kGpu);
    launch(kernel, cuda::grid_for(n), dim3(cuda::kThreads), 0, x.data<float>(), n);
    return x.slice(n - 1, n).item();
  };
  EXPECT_EQ(last(count_up<true>), static_cast<double>(n - 1));
  EXPECT_EQ(last(count_up<false>), 0);
}

// Every lane gets the sum over its warp; and its neighbours' values.
__global__ void warp_ops(const float* x, float* sum, float* left, float* right, double* broadcast) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  float s = x[i];
  for (int mask = 16; mask > 0; mask /= 2) s += __shfl_xor_sync(~0u, s, mask);
  sum[i] = s;
  left[i] = __shfl_up_sync(~0u, x[i], 1);
  right[i] = __shfl_down_sync(~0u, x[i], 1);
  broadcast[i] = __shfl_sync(~0u, static_cast<double>(x[i]), 7);
}

TEST_F(Simt, Shuffles) {
  const int64_t n = 2 * 96;
  const Tensor x = counting(n), sum = Tensor::empty({n}, DType::f32, kGpu);
  const Tensor left = Tensor::empty_like(sum), right = Tensor::empty_like(sum);
  const Tensor broadcast = Tensor::empty({n}, DType::f64, kGpu);
  cuda::simt::set_shuffle(3);
  launch(warp_ops, dim3(2), dim3(96), 0, x.data<float>(), sum.data<float>(), left.data<float>(),
         right.data<float>(), broadcast.data<double>());
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = i / 32 * 32, lane = i % 32;
    const auto at = [&](const Tensor& t) { return t.slice(i, i + 1).item(); };
    EXPECT_EQ(at(sum), static_cast<double>(32 * first + 31 * 16));
    EXPECT_EQ(at(left), static_cast<double>(lane == 0 ? i : i - 1));
    EXPECT_EQ(at(right), static_cast<double>(lane == 31 ? i : i + 1));
    EXPECT_EQ(at(broadcast), static_cast<double>(first + 7));
  }
}

__global__ void indices(int32_t* out) {
  MTCKI_DYNAMIC_SHARED(int32_t, cell);
  const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  cell[t] = static_cast<int32_t>(b * blockDim.x * blockDim.y * blockDim.z + t);
  __syncthreads();
  out[cell[t]] = cell[t];
}

TEST_F(Simt, GridsAndBlocksOfThreeDimensions) {
  const int64_t n = 3 * 2 * 2 * (4 * 3 * 2);
  const Tensor out = Tensor::full({n}, -1, DType::i32, kGpu);
  launch(indices, dim3(3, 2, 2), dim3(4, 3, 2), 24 * sizeof(int32_t), out.data<int32_t>());
  const std::vector<int32_t> got = out.to_vector<int32_t>();
  for (int64_t i = 0; i < n; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], i);
}

TEST_F(Simt, RefusesWhatNoGpuRuns) {
  EXPECT_THROW(launch(indices, dim3(1), dim3(1025), 0, nullptr), Error);
  EXPECT_THROW(launch(indices, dim3(1), dim3(32), 300 << 10, nullptr), Error);
  EXPECT_THROW(launch(indices, dim3(1, 65536), dim3(32), 0, nullptr), Error);
}

__global__ void divergent_barrier() {
  if (threadIdx.x < 16) __syncthreads();
}

TEST_F(Simt, EndsAtABarrierThatSomeThreadsNeverReach) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  // Threads that are done do not take part, as on a GPU; those of another kind of wait do.
  EXPECT_DEATH(launch(
                   +[] {
                     if (threadIdx.x < 32)
                       __syncthreads();
                     else if (threadIdx.x == 32)
                       __syncwarp();
                     else
                       __syncthreads();
                   },
                   dim3(1), dim3(64), 0),
               "a barrier that not every thread reaches");
  launch(divergent_barrier, dim3(1), dim3(32), 0);
}

__global__ void write_past_the_end(float* x, int n) { x[n + static_cast<int>(threadIdx.x)] = 1; }

__global__ void write_past_shared_memory(int n) {
  MTCKI_DYNAMIC_SHARED(float, cell);
  cell[n] = 1;
}
__global__ void write_past_an_array(float* x, int n) {
  __shared__ float cell[4];
  cell[n] = 1;
  x[0] = cell[0];
}

TEST_F(Simt, HostReadsOfDeviceMemoryAndOverrunsEndTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Tensor x = Tensor::zeros({1024}, DType::f32, kGpu);
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(launch(write_past_the_end, dim3(1), dim3(1), 0, x.data<float>(), 1024),
               "heap-buffer-overflow");
  EXPECT_DEATH(launch(write_past_shared_memory, dim3(1), dim3(1), 16, 4), "heap-buffer-overflow");
  EXPECT_DEATH(launch(write_past_an_array, dim3(1), dim3(1), 0, x.data<float>(), 4),
               "out of bounds");
#else
  EXPECT_DEATH(
      {
        volatile float* p = x.data<float>();
        p[0] = p[1] + 1;
      },
      "");
#endif
  launch(write_past_the_end, dim3(1), dim3(1), 0, x.data<float>(), 0);
  launch(write_past_shared_memory, dim3(1), dim3(1), 16, 3);
  launch(write_past_an_array, dim3(1), dim3(1), 0, x.data<float>(), 0);
  EXPECT_EQ(x.slice(0, 1).item(), 1.0);
}

}  // namespace
}  // namespace mtcki

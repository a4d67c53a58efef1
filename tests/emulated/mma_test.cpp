// Tensor core instructions and asynchronous copies of the emulated GPU, by the tables of the PTX
// ISA.

// clang-format off: the syntax of kernels comes before them
#include "tests/emulated/device/simt.h"
// clang-format on
#include <gtest/gtest.h>

#include "tensor/cuda/mma.cuh"
#include "tensor/cuda/wgmma.cuh"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using cuda::launch;
using testing::kGpu;
using testing::sample;

class Mma : public testing::CudaTest {
 protected:
  void TearDown() override { cuda::simt::set_shuffle(cuda::simt::kDefaultShuffle); }
};

// Each lane stores what it got, 4 registers of two elements; the matrices lie one after the other.
__global__ void transposed(const bfloat16* x, bfloat16* out, bool two) {
  MTCKI_DYNAMIC_SHARED(bfloat16, shared);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) shared[i] = x[i];
  __syncthreads();
  const cuda::SharedAddress row = cuda::shared_address(shared + lane * 8);
  uint32_t four[4] = {};
  if (two) {
    uint32_t r[2];
    cuda::load_transposed(r, row);
    four[0] = r[0], four[1] = r[1];
  } else {
    cuda::load_transposed(four, row);
  }
  std::memcpy(out + lane * 8, four, 16);
}

TEST_F(Mma, LoadsTransposedMatrices) {
  const Tensor x = sample({256}, 1, DType::bf16), on_gpu = x.to(kGpu);
  const std::vector<double> v = x.to_vector<double>();
  for (const bool two : {false, true}) {
    const Tensor out = Tensor::empty({256}, DType::bf16, kGpu);
    launch(transposed, dim3(1), dim3(32), 512, on_gpu.data<bfloat16>(), out.data<bfloat16>(), two);
    const std::vector<double> got = out.to_vector<double>();
    for (size_t lane = 0; lane < 32; ++lane)
      for (size_t j = 0; j < (two ? 2 : 4); ++j)
        for (size_t i = 0; i < 2; ++i)
          EXPECT_EQ(got[lane * 8 + j * 2 + i], v[j * 64 + (lane % 4 * 2 + i) * 8 + lane / 4]);
  }
}

// One product of 16x16 and 16x8 in plain memory, fragments filled by their definition.
__global__ void product(const bfloat16* a, const bfloat16* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const auto pair = [](bfloat16 low, bfloat16 high) {
    return uint32_t{low.bits} | uint32_t{high.bits} << 16;
  };
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; ++i) {
    const bfloat16* p = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    fa[i] = pair(p[0], p[1]);
  }
  for (int i = 0; i < 2; ++i) {
    const bfloat16* p = b + (2 * t + i * 8) * 8 + g;
    fb[i] = pair(p[0], p[8]);
  }
  float fd[4];
  for (int i = 0; i < 4; ++i) fd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  cuda::mma_bf16(fd, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fd[i];
}

TEST_F(Mma, AddsAProduct) {
  const Tensor a = sample({16, 16}, 2, DType::bf16), b = sample({16, 8}, 3, DType::bf16);
  const Tensor c = sample({16, 8}, 4, DType::f32);
  const auto va = a.to_vector<double>(), vb = b.to_vector<double>(), vc = c.to_vector<double>();
  for (const uint32_t seed : {0u, 5u}) {
    cuda::simt::set_shuffle(seed);
    const Tensor ga = a.to(kGpu), gb = b.to(kGpu), d = c.to(kGpu);
    launch(product, dim3(1), dim3(32), 0, ga.data<bfloat16>(), gb.data<bfloat16>(),
           d.data<float>());
    const std::vector<double> got = d.to_vector<double>();
    for (size_t i = 0; i < 16; ++i)
      for (size_t j = 0; j < 8; ++j) {
        double want = vc[i * 8 + j];
        for (size_t k = 0; k < 16; ++k) want += va[i * 16 + k] * vb[k * 8 + j];
        EXPECT_NEAR(got[i * 8 + j], want, 1e-5);
      }
  }
}

// y[0..] after the wait for the first of two groups, y[16..] after that for both: shared memory
// starts as ones.
__global__ void copies(const float* x, float* y) {
  MTCKI_DYNAMIC_SHARED(float, shared);
  for (int i = 0; i < 12; ++i) shared[i] = 1;
  cuda::copy16_async(cuda::shared_address(shared), x, true);
  cuda::end_copies();
  cuda::copy16_async(cuda::shared_address(shared + 4), x + 4, true);
  cuda::copy16_async(cuda::shared_address(shared + 8), x, false);
  cuda::end_copies();
  cuda::wait_copies<1>();
  for (int i = 0; i < 12; ++i) y[i] = shared[i];
  cuda::wait_copies<0>();
  for (int i = 0; i < 12; ++i) y[16 + i] = shared[i];
}

TEST_F(Mma, CopiesArriveAsLateOrAsEarlyAsTheyMay) {
  const Tensor x = sample({8}, 5, DType::f32), on_gpu = x.to(kGpu);
  const std::vector<float> v = x.to_vector<float>();
  for (const uint32_t seed : {0u, 1u, 2u}) {
    cuda::simt::set_shuffle(seed);
    const bool early = seed == 2;
    const Tensor y = Tensor::zeros({32}, DType::f32, kGpu);
    launch(copies, dim3(1), dim3(1), 48, on_gpu.data<float>(), y.data<float>());
    const std::vector<float> got = y.to_vector<float>();
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(got[i], v[i]);
      EXPECT_EQ(got[4 + i], early ? v[4 + i] : 1);
      EXPECT_EQ(got[8 + i], early ? 0 : 1);
      EXPECT_EQ(got[20 + i], v[4 + i]);
      EXPECT_EQ(got[24 + i], 0);
    }
  }
}

// One warpgroup copies an operand (16 x 64 of bf16) and multiplies; the fence or the barrier between
// may be missing.
template <bool Fence>
__global__ void multiply_what_was_copied(const bfloat16* x, float* y) {
  MTCKI_DYNAMIC_SHARED(bfloat16, shared);
  const int t = static_cast<int>(threadIdx.x);
  const cuda::SharedAddress start = cuda::shared_address(shared);
  cuda::copy16_async(start + static_cast<cuda::SharedAddress>(t * 16), x + t * 8, true);
  cuda::end_copies();
  cuda::wait_copies<0>();
  if (Fence) cuda::publish_to_products();
  cuda::warpgroup_barrier(0);
  const uint32_t ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
  float sums[64];
  cuda::begin_products();
  cuda::product<64, 0, true>(sums, ones, cuda::SharedBlocks{start, 128, 256});
  cuda::end_products();
  cuda::wait_products(sums);
  y[t] = sums[0];
}

TEST_F(Mma, ProductsOfCopiesThatNoFencePublishedEndTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Tensor x = Tensor::full({16 * 64}, 1, DType::bf16, kGpu);
  const Tensor y = Tensor::zeros({128}, DType::f32, kGpu);
  const auto run = [&](void (*kernel)(const bfloat16*, float*)) {
    launch(kernel, dim3(1), dim3(128), 16 * 64 * 2, x.data<bfloat16>(), y.data<float>());
    cuda::synchronize();
  };
  EXPECT_DEATH(run(multiply_what_was_copied<false>), "before publish_to_products");
  run(multiply_what_was_copied<true>);
  EXPECT_EQ(y.slice(127, 128).item(), 16);
}

// Two warpgroups take turns: with one end too few a warpgroup waits for ever.
__global__ void take_turns(float* y, int first_turns) {
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  for (int i = 0; i < first_turns && warpgroup == 1; ++i) cuda::end_turn(1);
  for (int round = 0; round < 3; ++round) {
    cuda::wait_for_turn(warpgroup);
    if (threadIdx.x % 128 == 0) y[2 * round + warpgroup] = y[6] += 1;
    if (warpgroup == 0 || round < 2) cuda::end_turn(warpgroup);
  }
}

TEST_F(Mma, WarpgroupsTakeTurns) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Tensor y = Tensor::zeros({7}, DType::f32, kGpu);
  const auto run = [&](int first_turns) {
    launch(take_turns, dim3(1), dim3(256), 0, y.data<float>(), first_turns);
    cuda::synchronize();
  };
  for (const uint32_t seed : {0u, 1u, 3u}) {
    cuda::simt::set_shuffle(seed);
    y.zero_();
    run(1);
    EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 2, 3, 4, 5, 6, 6})) << seed;
  }
  EXPECT_DEATH(run(0), "a barrier that not every thread reaches");
  EXPECT_DEATH(run(2), "simt: ");
}

}  // namespace
}  // namespace mtcki

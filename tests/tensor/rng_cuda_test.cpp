// Draws on the GPU against those of the CPU.
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;

class RngCuda : public CudaTest {};

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16};
const Rng kRng{0x123456789abcdefu, rng_stream("test"), (uint64_t{5} << 32) + 7};

TEST_F(RngCuda, UniformBitsAreThoseOfTheCpu) {
  for (const DType dtype : kTypes)
    for (const int64_t n : {0, 1, 2, 7, 100001}) {
      const Tensor there = rand({n}, kRng, dtype, kGpu);
      EXPECT_EQ(there.device(), kGpu);
      EXPECT_EQ(there.dtype(), dtype);
      EXPECT_TRUE(identical(there, rand({n}, kRng, dtype).to(kGpu)));
    }
}

TEST_F(RngCuda, IntegersAreThoseOfTheCpu) {
  for (const int64_t high : {int64_t{1}, int64_t{7}, int64_t{1} << 40, INT64_MAX})
    EXPECT_TRUE(identical(randint(-3, high - 3, {1001}, kRng, kGpu),
                          randint(-3, high - 3, {1001}, kRng).to(kGpu)));
  EXPECT_TRUE(identical(randperm(100, kRng, kGpu), randperm(100, kRng).to(kGpu)));
}

// Logarithm, sine and cosine are the device's own: the last bits of f64 may differ.
TEST_F(RngCuda, NormalValuesFollowTheCpu) {
  const int64_t n = 100001;
  EXPECT_TRUE(near(randn({n}, kRng, DType::f64, kGpu), randn({n}, kRng, DType::f64), 1e-14));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Values got = values(randn({n}, kRng, dtype, kGpu)),
                 want = values(randn({n}, kRng, dtype));
    int64_t different = 0;
    for (size_t i = 0; i < got.size(); ++i) different += got[i] != want[i];
    EXPECT_LE(different, 1) << name_of(dtype);
  }
  EXPECT_TRUE(identical(randn({n}, kRng, DType::f32, kGpu), randn({n}, kRng, DType::f32, kGpu)));
  EXPECT_FALSE(
      identical(randn({n}, kRng, DType::f32, kGpu), randn({n}, kRng.at(1), DType::f32, kGpu)));
}

}  // namespace
}  // namespace mtcki

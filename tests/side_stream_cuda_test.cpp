// Weight gradients on side streams: equal to the CPU's, also when a weight is used more than once
// or has a gradient already; nothing stays behind, after an error neither.
#include <gmock/gmock.h>

#include "autograd/functions.h"
#include "autograd/side_stream.h"
#include "cuda_testing.h"
#include "cuda_testing_products.h"
#include "ops_testing.h"
#include "tensor/allocator.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

using namespace testing;

class SideStreamCuda : public CudaTest {};

// The gradient of w after `passes` backward passes through three convolutions with it.
Tensor gradient(Device device, int passes) {
  const Variable w(sample({16, 16, 3, 3}, 1, DType::f32).to(device), true);
  for (int i = 0; i < passes; ++i) {
    Variable y(sample({4, 16, 9, 9}, 2, DType::f32).to(device));
    for (int layer = 0; layer < 3; ++layer) y = conv2d(y, w, {}, Conv2dOptions(1, 1));
    mean(mul(y, y)).backward();
  }
  return w.grad();
}

TEST_F(SideStreamCuda, AWeightThatIsUsedThreeTimes) {
  for (const int passes : {1, 2})
    EXPECT_TRUE(close(gradient(kGpu, passes), gradient(Device::cpu(), passes).to(DType::f64), 1e-4))
        << passes;
  EXPECT_TRUE(identical(gradient(kGpu, 2), gradient(kGpu, 2)));
}

TEST_F(SideStreamCuda, HoldsWhatABranchReadsUntilItIsJoined) {
  release_cached_memory(kGpu);
  const size_t before = memory_stats(kGpu).in_use;
  {
    const SideStreamScope scope;
    const Tensor y = on_side_stream({Tensor::zeros({1024}, DType::f32, kGpu)},
                                    [] { return Tensor::zeros({4}, DType::f32, kGpu); });
    EXPECT_GE(memory_stats(kGpu).in_use, before + 4096);
    join_side_streams();
    EXPECT_LT(memory_stats(kGpu).in_use, before + 4096);
  }
  const auto fails = [] {
    const SideStreamScope scope;
    on_side_stream({Tensor::zeros({1024}, DType::f32, kGpu)},
                   []() -> Tensor { throw ShapeError("as planned"); });
  };
  EXPECT_THROW(fails(), ShapeError);
  EXPECT_EQ(memory_stats(kGpu).in_use, before);
  EXPECT_EQ(cuda::stream_index(), 0);
}

}  // namespace
}  // namespace mtcki

// Tensors on the GPU: memory, copies, layouts, conversions, elementwise kernels.
#include <gmock/gmock.h>

#include "tensor/allocator.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::sample;

class TensorCuda : public testing::CudaTest {};

TEST_F(TensorCuda, CopiesBothWays) {
  for (const DType dtype :
       {DType::f32, DType::f64, DType::bf16, DType::i64, DType::i32, DType::u8, DType::boolean}) {
    const Tensor x = mul(sample({3, 5, 7}, 1), 100.0).to(dtype);
    const Tensor there = x.to(kGpu);
    EXPECT_EQ(there.device(), kGpu);
    EXPECT_TRUE(identical(there.to(Device::cpu()), x)) << name_of(dtype);
    EXPECT_TRUE(identical(there.clone(), x));
  }
}

TEST_F(TensorCuda, FillsAndReadsItems) {
  Tensor x = Tensor::full({5}, 2.5, DType::bf16, kGpu);
  EXPECT_EQ(x.slice(4, 5).item(), 2.5);
  x.zero_();
  EXPECT_EQ(x.slice(0, 1).item(), 0.0);
  EXPECT_EQ(Tensor::full({}, 7, DType::i64, kGpu).item(), 7);
}

TEST_F(TensorCuda, ConvertsTypesAndLayouts) {
  for (const int64_t c : {1, 3, 33, 64}) {
    const Tensor x = mul(sample({2, c, 5, 7}, 2, DType::f32), 50.0);
    const Tensor there = x.to(kGpu).to(Layout::channels_last);
    EXPECT_EQ(there.layout(), Layout::channels_last);
    EXPECT_TRUE(identical(there.to(Device::cpu()).plain(), x));
    EXPECT_TRUE(identical(there.plain().to(Device::cpu()), x));
    for (const DType dtype : {DType::f64, DType::bf16, DType::i32, DType::u8, DType::boolean})
      EXPECT_TRUE(identical(there.to(dtype), x.to(dtype))) << name_of(dtype);
  }
  const Tensor images = mul(sample({2, 3, 4, 4}, 3, DType::f32), 0.4);
  EXPECT_TRUE(identical(unit_to_u8(images.to(kGpu)), unit_to_u8(images)));
  EXPECT_TRUE(identical(u8_to_unit(unit_to_u8(images).to(kGpu)), u8_to_unit(unit_to_u8(images))));
}

TEST_F(TensorCuda, BlockedTensorsBecomePlainOnTheGpu) {
  const Tensor x = sample({1, kChannelBlock, 3, 3}, 4, DType::f32).to(Layout::blocked);
  EXPECT_EQ(x.to(kGpu).layout(), Layout::plain);
  EXPECT_TRUE(identical(x.to(kGpu), x.plain()));
}

TEST_F(TensorCuda, ElementwiseEqualsTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    for (const Shape& shape : {Shape{7}, Shape{2, 16, 4, 4}, Shape{3, 5, 3, 2}, Shape{0, 4}}) {
      const Tensor a = sample(shape, 5, dtype), b = sample(shape, 6, dtype);
      const Tensor ga = a.to(kGpu), gb = b.to(kGpu);
      const double tol = dtype == DType::bf16 ? 1e-2 : dtype == DType::f32 ? 1e-6 : 1e-14;
      EXPECT_TRUE(testing::near(add(ga, gb), add(a, b), tol));
      EXPECT_TRUE(testing::near(mul(ga, gb), mul(a, b), tol));
      EXPECT_TRUE(testing::near(relu(ga), relu(a), tol));
      EXPECT_TRUE(testing::near(tanh(ga), tanh(a), tol));
      EXPECT_TRUE(testing::near(sigmoid(ga), sigmoid(a), tol));
      EXPECT_TRUE(testing::near(leaky_relu_grad(ga, gb, 0.2), leaky_relu_grad(a, b, 0.2), tol));
      EXPECT_TRUE(identical(less(ga, gb), less(a, b)));
      EXPECT_TRUE(identical(where(less(ga, gb), ga, gb), where(less(a, b), a, b)));
      Tensor sum = ga.clone();
      add_(sum, gb, 0.5);
      mul_(sum, 2.0);
      EXPECT_TRUE(testing::near(sum, add(mul(a, 2.0), b), 2 * tol));
    }
  }
}

TEST_F(TensorCuda, BroadcastsLikeTheCpu) {
  const Tensor x = sample({2, 6, 3, 5}, 7, DType::f32);
  for (const Shape& s : {Shape{1, 6, 1, 1}, Shape{6, 1, 1}, Shape{}, Shape{5}, Shape{2, 1, 3, 1}}) {
    const Tensor p = sample(s, 8, DType::f32);
    for (const Layout layout : {Layout::plain, Layout::channels_last}) {
      const Tensor gx = x.to(kGpu).to(layout);
      EXPECT_TRUE(testing::near(sub(gx, p.to(kGpu)), sub(x, p), 1e-6)) << s.to_string();
      EXPECT_TRUE(testing::near(sub(p.to(kGpu), gx), sub(p, x), 1e-6)) << s.to_string();
    }
  }
}

TEST_F(TensorCuda, FindsWhatIsNotFinite) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = sample({1000}, 9, dtype).to(kGpu);
    EXPECT_TRUE(all_finite(x));
    x.slice(999, 1000).fill_(INFINITY);
    EXPECT_FALSE(all_finite(x));
  }
}

TEST_F(TensorCuda, FreedBlocksAreUsedAgain) {
  if (const char* mode = std::getenv("MTCKI_CUDA_ALLOC"); mode && std::string(mode) == "plain")
    GTEST_SKIP() << "MTCKI_CUDA_ALLOC=plain: no block is kept";
  release_cached_memory(kGpu);
  const MemoryStats before = memory_stats(kGpu);
  void* first = nullptr;
  {
    const Tensor x = Tensor::empty({1000}, DType::f32, kGpu);
    first = x.raw();
    EXPECT_GE(memory_stats(kGpu).in_use, before.in_use + 4000);
  }
  EXPECT_EQ(memory_stats(kGpu).in_use, before.in_use);
  EXPECT_EQ(Tensor::empty({1000}, DType::f32, kGpu).raw(), first);
  {
    // A pool of its own hands out other memory, and gets it back.
    const DevicePoolScope pool(new_device_pool());
    EXPECT_NE(Tensor::empty({1000}, DType::f32, kGpu).raw(), first);
  }
  EXPECT_EQ(Tensor::empty({1000}, DType::f32, kGpu).raw(), first);
}

TEST_F(TensorCuda, LimitNamesTheGpu) {
  set_memory_limit(size_t{1} << 20, kGpu);
  try {
    Tensor::empty({1 << 20}, DType::f32, kGpu);
    ADD_FAILURE() << "no error";
  } catch (const OutOfMemoryError& e) {
    EXPECT_THAT(e.what(), HasSubstr("refused 4.0 MiB"));
    EXPECT_THAT(e.what(), AllOf(HasSubstr("capacity"), HasSubstr(" free)")));
  }
  set_memory_limit(0, kGpu);
  // Blocks that are kept count when they are handed out again.
  Tensor::empty({1 << 20}, DType::f32, kGpu);
  set_memory_limit(memory_stats(kGpu).in_use + 1024, kGpu);
  EXPECT_THROW(Tensor::empty({1 << 20}, DType::f32, kGpu), OutOfMemoryError);
  set_memory_limit(0, kGpu);
}

TEST_F(TensorCuda, CapturedWorkRepeats) {
  const Tensor x = Tensor::full({4}, 1.0, DType::f32, kGpu);
  add_(x, x, 0.0);
  cuda::Graph graph;
  graph.begin();
  mul_(x, 2.0);
  EXPECT_THROW(x.slice(0, 1).item(), CaptureError);
  graph.end();
  EXPECT_EQ(x.slice(0, 1).item(), 1.0);  // nothing ran
  for (int i = 0; i < 3; ++i) graph.launch();
  EXPECT_EQ(x.slice(3, 4).item(), 8.0);
}

}  // namespace
}  // namespace mtcki

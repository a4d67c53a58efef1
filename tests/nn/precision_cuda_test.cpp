// Networks in bf16 and TF32 against f32, on the GPU.
#include "tests/cuda_testing.h"
#include "tests/nn/precision_testing.h"

namespace mtcki::nn {
namespace {

using mtcki::testing::cosine;
using mtcki::testing::distance;
using mtcki::testing::kGpu;
using mtcki::testing::labels;
using mtcki::testing::Pass;
using mtcki::testing::pass_of;
using mtcki::testing::values;
using PrecisionCuda = mtcki::testing::CudaTest;

// Parameters and statistics; counters stay on the host. Unlike Module::to it leaves weights plain.
void move_to_gpu(Module& m) {
  for (auto& [name, p] : m.named_parameters()) p->set_data(p->data().to(kGpu));
  for (auto& [name, b] : m.named_buffers())
    if (is_floating(b->dtype())) *b = b->to(kGpu);
}

TEST_F(PrecisionCuda, ClassifiersInBf16) {
  for (const std::string& name : mtcki::testing::kFamilies) {
    SCOPED_TRACE(name);
    const auto m = mtcki::testing::classifier(name);
    move_to_gpu(*m);
    const Tensor x = values({8, 3, 32, 32}, 1).to(kGpu).to(Layout::channels_last);
    const Tensor y = labels(8).to(kGpu);
    const Pass full = pass_of(*m, Precision::f32, x, y), half = pass_of(*m, Precision::bf16, x, y);
    EXPECT_LT(distance(half.output, full.output), 2e-2);
    EXPECT_GT(distance(half.output, full.output), 0) << "bf16 was not used";
    EXPECT_GT(cosine(half.gradients, full.gradients), 0.98);
    EXPECT_EQ(half.output.dtype(), DType::f32);
    EXPECT_EQ(half.feature.dtype(), DType::f32);
    for (const Variable& input : half.norm_inputs) {
      EXPECT_EQ(input.data().dtype(), DType::bf16);
      EXPECT_EQ(input.data().layout(), Layout::channels_last);
    }
    const Pass tf32 = pass_of(*m, Precision::tf32, x, y);
    EXPECT_LT(distance(tf32.output, full.output), 5e-3);
    EXPECT_GT(cosine(tf32.gradients, full.gradients), 0.99);
  }
}

TEST_F(PrecisionCuda, TheSameStoryAsTheCpu) {
  const auto cpu = mtcki::testing::classifier("wrn10_1"),
             gpu = mtcki::testing::classifier("wrn10_1");
  gpu->to(kGpu);
  const Tensor x = values({8, 3, 32, 32}, 1), y = labels(8);
  const Pass a = pass_of(*cpu, Precision::bf16, x, y);
  const Pass b = pass_of(*gpu, Precision::bf16, x.to(kGpu).to(Layout::channels_last), y.to(kGpu));
  EXPECT_LT(distance(b.output, a.output), 2e-2);
  EXPECT_GT(cosine(b.gradients, a.gradients), 0.98);
}

TEST_F(PrecisionCuda, GeneratorsInBf16) {
  for (const std::string& name : mtcki::testing::kGenerators) {
    SCOPED_TRACE(name);
    const auto g = mtcki::testing::generator(name);
    move_to_gpu(*g);
    const Tensor z = values({8, 32}, 3).to(kGpu), w = values({8, 3, 32, 32}, 4).to(kGpu);
    const Pass full = pass_of(*g, Precision::f32, z, w), half = pass_of(*g, Precision::bf16, z, w);
    EXPECT_EQ(half.output.dtype(), DType::f32);
    EXPECT_LT(distance(half.output, full.output), 5e-3);
    EXPECT_GT(cosine(half.gradients, full.gradients), 0.99);
  }
}

}  // namespace
}  // namespace mtcki::nn

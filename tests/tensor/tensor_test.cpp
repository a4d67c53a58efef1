// A tensor as a handle: shapes that fit, and what an undefined one answers.
#include "tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/functions.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/ops/cast_kernels.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;

std::string refusal(const Tensor& x, const Shape& shape) {
  try {
    x.reshape(shape);
  } catch (const ShapeError& e) {
    return e.what();
  }
  return "no error";
}

TEST(Tensor, ABuildWithoutCudaHasKernelsThatThrow) {
  if (cuda::library_versions() != "none") GTEST_SKIP() << "this build has CUDA";
  EXPECT_FALSE(cuda::availability().usable);
  try {
    fill_cuda(Tensor::zeros({1}), 1.0);
    FAIL() << "no error";
  } catch (const DeviceError& e) {
    EXPECT_STREQ(e.what(), "this build has no CUDA kernels");
  }
}

TEST(Tensor, ReshapeTakesOneUnknownSize) {
  const Tensor x = Tensor::zeros({4, 6});
  EXPECT_EQ(x.reshape({-1, 8}).shape(), (Shape{3, 8}));
  EXPECT_EQ(x.reshape({24, -1}).shape(), (Shape{24, 1}));
  EXPECT_THAT(refusal(x, {-1, -1}), HasSubstr("one dimension may be -1"));
  EXPECT_THAT(refusal(x, {-2, -12}), HasSubstr("must not be negative"));
  EXPECT_THAT(refusal(x, {-1, 7}), HasSubstr("do not fit"));
  const Tensor none = Tensor::zeros({0, 3});
  EXPECT_EQ(none.reshape({-1, 5}).shape(), (Shape{0, 5}));
  EXPECT_THAT(refusal(none, {0, -1}), HasSubstr("any size would do"));
}

TEST(Tensor, FlattenKeepsTheFeaturesOfAnEmptyBatch) {
  EXPECT_EQ(flatten(Variable(Tensor::zeros({0, 64, 2, 2}))).shape(), (Shape{0, 256}));
  EXPECT_EQ(flatten(Variable(Tensor::zeros({5}))).shape(), (Shape{5, 1}));
}

TEST(Tensor, AnUndefinedOneAnswers) {
  const Tensor none;
  EXPECT_FALSE(none.clone().defined());
  EXPECT_EQ(none.version(), 0u);
  EXPECT_EQ(none.captured_writes(), 0u);
  none.bump_version();
}

}  // namespace
}  // namespace mtcki

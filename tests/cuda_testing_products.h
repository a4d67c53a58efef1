// What the GPU tests of matrix products and convolutions share: the dtypes and rounding modes with
// the accuracy that each of them promises, and the comparison by the largest value.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/math_mode.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki::testing {

struct Precision {
  DType dtype;
  Math math;
  double tolerance;  // relative to the largest value
};
inline const std::vector<Precision> kPrecisions{{DType::f64, Math::strict, 1e-13},
                                                {DType::f32, Math::strict, 1e-5},
                                                {DType::f32, Math::tf32, 2e-3},
                                                {DType::bf16, Math::strict, 2e-2}};

inline ::testing::AssertionResult close(const Tensor& got, const Tensor& want, double tolerance) {
  if (got.shape() != want.shape())
    return ::testing::AssertionFailure() << got.describe() << ", expected " << want.describe();
  const auto a = values(got), b = values(want);
  double largest = 0, difference = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    largest = std::max(largest, std::fabs(b[i]));
    const double d = std::fabs(a[i] - b[i]);
    if (!(d <= difference)) difference = d;  // NaN stays
  }
  if (difference <= tolerance * largest) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "differs by " << difference << ", largest value " << largest << ", " << got.describe();
}

}  // namespace mtcki::testing

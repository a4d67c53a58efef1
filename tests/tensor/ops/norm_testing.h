// What the tests of batch norm and of its statistics share: moments by plain loops, and operands.
#pragma once

#include <algorithm>

#include "tensor/ops/elementwise.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki::testing {

// Mean and biased variance per channel of a plain [N,C,...] array, two passes in double.
struct Stats {
  Values mean, var;
};
inline Stats stats_reference(const Tensor& x) {
  const Values v = values(x);
  const int64_t n = x.size(0), c = x.size(1), inner = x.numel() / std::max<int64_t>(1, n * c);
  Stats s{Values(static_cast<size_t>(c)), Values(static_cast<size_t>(c))};
  for (int64_t k = 0; k < c; ++k) {
    const auto each = [&](auto f) {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t q = 0; q < inner; ++q) f(v[static_cast<size_t>((i * c + k) * inner + q)]);
    };
    double mean = 0, var = 0;
    each([&](double a) { mean += a; });
    mean /= static_cast<double>(n * inner);
    each([&](double a) { var += (a - mean) * (a - mean); });
    s.mean[static_cast<size_t>(k)] = mean;
    s.var[static_cast<size_t>(k)] = var / static_cast<double>(n * inner);
  }
  return s;
}

// Operands of a batch norm.
struct NormCase {
  Tensor x, w, b, rm, rv, residual;
};
inline NormCase make_case(const Shape& shape, DType dtype, Layout layout, bool residual) {
  const Shape c{shape[1]};
  const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
  return {add(mul(sample(shape, 1, dtype), 1.5), 0.25).to(layout),
          add(mul(sample(c, 2, wide), 0.3), 1.0),
          sample(c, 3, wide),
          sample(c, 4, wide),
          add(square(sample(c, 5, wide)), 0.1),
          residual ? sample(shape, 6, dtype).to(layout) : Tensor()};
}

}  // namespace mtcki::testing

// Tests that run as the ranks of one mpirun job. Every rank runs the same cases in the same order.
// The reference is the same computation with all rows in one process, on every rank.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/comm.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace mtcki::testing {

inline const Communicator& world() { return Communicator::world(); }

// This rank's rows of a batch.
inline Tensor own_rows(const Tensor& all) {
  const RowRange r = rows_of_rank(all.size(0), world(), "rows");
  return all.slice(r.begin, r.end).clone();
}

inline Tensor summed(const Tensor& t) {
  const Tensor s = t.plain().clone();
  world().all_reduce_sum_(s);
  return s;
}

inline Tensor sample(const Shape& shape, uint64_t seed, DType dtype) {
  return randn(shape, Rng{seed, rng_stream("mpi"), 0}, DType::f64).to(dtype);
}

// max |got - want| <= tolerance * max |want|
inline ::testing::AssertionResult close(const Tensor& got, const Tensor& want, double tolerance) {
  if (!got.defined() || got.shape() != want.shape())
    return ::testing::AssertionFailure()
           << "shape " << (got.defined() ? got.describe() : "undefined") << ", expected "
           << want.describe();
  const auto g = got.to_vector<double>(), w = want.to_vector<double>();
  double most = 0, error = 0;
  for (size_t i = 0; i < g.size(); ++i) {
    most = std::max(most, std::fabs(w[i]));
    error = std::max(error, std::isfinite(g[i]) ? std::fabs(g[i] - w[i]) : INFINITY);
  }
  if (error <= tolerance * most) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "differs by " << error << " of at most " << most << ", "
                                       << error / most << " relative; allowed " << tolerance;
}

// Whether every rank holds the same bits.
inline ::testing::AssertionResult same_on_all_ranks(const Tensor& t) {
  const Tensor mine = t.to(Device::cpu()).plain().reshape({1, t.numel()});
  const Tensor all = world().all_gather(mine);
  for (int r = 0; r < world().size(); ++r)
    if (!identical(all.slice(r, r + 1), mine))
      return ::testing::AssertionFailure()
             << "rank " << r << " and rank " << world().rank() << " hold different bits";
  return ::testing::AssertionSuccess();
}

}  // namespace mtcki::testing

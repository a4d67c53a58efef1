// Helpers of the op tests: sample tensors in every layout, references as plain arrays of double,
// numerical derivatives, error texts.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace mtcki::testing {

using Values = std::vector<double>;

inline Tensor sample(const Shape& shape, uint64_t seed, DType dtype = DType::f64) {
  return randn(shape, Rng{seed, rng_stream("test"), 0}, DType::f64).to(dtype);
}

// -5/4 .. 5/4 in steps of 1/4, exact in every float type: (((7i + 3) mod 11) - 5)/4.
inline Tensor steps(const Shape& shape, DType dtype = DType::f64) {
  Values v(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<double>(static_cast<int>((i * 7 + 3) % 11) - 5) / 4;
  return Tensor::from(v, shape).to(dtype);
}

inline Values values(const Tensor& t) { return t.to_vector<double>(); }

// The layouts that a rank-4 tensor of so many channels can have.
inline std::vector<Layout> layouts(int64_t channels) {
  std::vector<Layout> all{Layout::plain, Layout::channels_last};
  if (channels % kChannelBlock == 0) all.push_back(Layout::blocked);
  return all;
}
inline const std::vector<int64_t>& channel_counts() {
  static const std::vector<int64_t> counts{1, 3, kChannelBlock, 2 * kChannelBlock,
                                           kChannelBlock + 3};
  return counts;
}

inline double tolerance(DType dtype) {
  return dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 2e-5 : 3e-2;
}

// |got - want| <= tol * max(1, |want|) everywhere.
inline ::testing::AssertionResult near(const Tensor& got, const Values& want, double tol) {
  const Values g = values(got);
  if (g.size() != want.size())
    return ::testing::AssertionFailure() << g.size() << " values, expected " << want.size();
  for (size_t i = 0; i < g.size(); ++i)
    if (!(std::fabs(g[i] - want[i]) <= tol * std::max(1.0, std::fabs(want[i]))))
      return ::testing::AssertionFailure() << "element " << i << " is " << g[i] << ", expected "
                                           << want[i] << " in " << got.describe();
  return ::testing::AssertionSuccess();
}
inline ::testing::AssertionResult near(const Tensor& got, const Tensor& want, double tol) {
  if (got.shape() != want.shape())
    return ::testing::AssertionFailure() << got.describe() << ", expected " << want.describe();
  return near(got, values(want), tol);
}

// Checks gx = d/dx sum(g * f(x)) by central differences; everything f64 and plain.
inline ::testing::AssertionResult matches_numeric(const std::function<Tensor(const Tensor&)>& f,
                                                  const Tensor& x, const Tensor& g,
                                                  const Tensor& gx, double tol = 1e-7) {
  const Values weight = values(g);
  const auto objective = [&](const Values& at) {
    const Values y = values(f(Tensor::from(at, x.shape()).to(x.layout())));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * weight[i];
    return sum;
  };
  const double h = 1e-5;
  Values numeric, base = values(x);
  for (size_t i = 0; i < base.size(); ++i) {
    Values at = base;
    at[i] = base[i] + h;
    const double up = objective(at);
    at[i] = base[i] - h;
    numeric.push_back((up - objective(at)) / (2 * h));
  }
  return near(gx, numeric, tol);
}

// The text of the error of type E that f throws; fails when it throws none or another one.
template <class E, class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << "another type of error: " << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace mtcki::testing

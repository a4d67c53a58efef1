// Gradients gathered for one tensor x during a backward. That of a statistics loss
// (ops/bn_statistics.h) waits unevaluated: the gradient of the batch norm that reads the same x
// adds it in its own pass over x.
#pragma once

#include <utility>

#include "tensor/tensor.h"

namespace mtcki {

class GradientSum {
 public:
  GradientSum() = default;
  GradientSum(const Tensor& gradient) : sum_(gradient) {}  // NOLINT: the common case
  bool defined() const { return sum_.defined() || statistics_.x.defined(); }
  void add(Tensor gradient);
  void add_statistics(const Tensor& g, const Tensor& x, const Tensor& scale, const Tensor& shift);
  // The gradient. Leaves nothing behind.
  Tensor take();

  struct Statistics {
    Tensor g, x, scale, shift;  // x undefined: none
  };
  // The sum alone; what a statistics loss adds keeps waiting.
  Tensor take_sum() { return std::exchange(sum_, Tensor()); }
  // In two parts, for a kernel that adds both.
  std::pair<Tensor, Statistics> take_parts();

 private:
  Tensor sum_;
  Statistics statistics_;
};

}  // namespace mtcki

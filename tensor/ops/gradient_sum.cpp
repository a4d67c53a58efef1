#include "tensor/ops/gradient_sum.h"

#include "tensor/ops/bn_statistics.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

// Bytes that nobody else can see are reused, those of the sum so far or those of the gradient.
void GradientSum::add(Tensor gradient) {
  if (!sum_.defined()) {
    sum_ = std::move(gradient);
  } else if (sum_.unique()) {
    add_(sum_, gradient);
  } else if (gradient.unique() && gradient.layout() == sum_.layout()) {
    add_(gradient, sum_);
    sum_ = std::move(gradient);
  } else {
    sum_ = mtcki::add(sum_, gradient);
  }
}

void GradientSum::add_statistics(const Tensor& g, const Tensor& x, const Tensor& scale,
                                 const Tensor& shift) {
  if (statistics_.x.defined()) sum_ = take();  // one can wait
  statistics_ = {g, x, scale, shift};
}

Tensor GradientSum::take() {
  auto [sum, s] = take_parts();
  return s.x.defined() ? bn_statistics_grad(s.g, s.x, s.scale, s.shift, std::move(sum)) : sum;
}

std::pair<Tensor, GradientSum::Statistics> GradientSum::take_parts() {
  return {std::exchange(sum_, Tensor()), std::exchange(statistics_, Statistics())};
}

}  // namespace mtcki

// Judges exercise 2: shapes by the rule, and the adjoint by its definition.
#include "course/checks/judge.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

void shapes(Judge& judge) {
  const auto check = [&](const Shape& a, const Shape& b, const Shape& wanted) {
    const Shape got = broadcast_shape(a, b);
    judge.check(a.to_string() + " and " + b.to_string() + " give " + wanted.to_string(),
                got == wanted, "got " + got.to_string());
  };
  check({2, 3}, {3}, {2, 3});
  check({3}, {2, 3}, {2, 3});
  check({4, 1}, {1, 5}, {4, 5});
  check({8, 16, 4, 4}, {16, 1, 1}, {8, 16, 4, 4});
  check({2, 0}, {1}, {2, 0});
  check({}, {7}, {7});
  bool refused = false;
  try {
    broadcast_shape({2, 3}, {2});
  } catch (const ShapeError&) {
    refused = true;
  }
  judge.check("[2, 3] and [2] are a ShapeError", refused);
}

void adjoints(Judge& judge) {
  // y = a + b with b [3]: dL/db is the sum over the rows of dL/dy.
  const Tensor gy = Tensor::from(std::vector<float>{1, 2, 3, 10, 20, 30}, {2, 3});
  judge.close("the gradient of b [3] in a [2, 3] + b", sum_back(gy, {3}),
              Tensor::from(std::vector<float>{11, 22, 33}, {3}));
  judge.close("the gradient of a column [2, 1]", sum_back(gy, {2, 1}),
              Tensor::from(std::vector<float>{6, 60}, {2, 1}));
  judge.close("nothing to do", sum_back(gy, {2, 3}), gy);

  // <broadcast(x), g> = <x, sum_back(g)> for all x and g: that is what makes it the adjoint.
  for (const Shape& shape : {Shape{4, 1, 1}, Shape{1, 4, 1, 5}, Shape{5}, Shape{}}) {
    const Shape large{3, 4, 2, 5};
    const Tensor x = randn(shape, Rng{1, 2, 3}, DType::f64);
    const Tensor g = randn(large, Rng{4, 5, 6}, DType::f64);
    judge.equal("<broadcast x, g> = <x, sum_back g> for x " + shape.to_string(),
                sum(mul(x, sum_back(g, shape))).item(), sum(mul(broadcast_to(x, large), g)).item());
  }
}

void check(Judge& judge) {
  shapes(judge);
  adjoints(judge);
}

const Chapter chapter(2, "Broadcasting", check);

}  // namespace

}  // namespace mtcki::course

// Solution 11: contrast, and what it is good for (docs/course/11_contrast.md).
#include <cmath>

#include "course/course.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki::course {

// Row i of u v^T / tau holds the similarities of u_i with all rows of v. The right one stands in
// column i: a classification with N classes whose label is i.
Variable contrast(const Variable& u, const Variable& v, double tau) {
  std::vector<int64_t> right;
  for (int64_t i = 0; i < u.size(0); ++i) right.push_back(i);
  const Tensor labels = Tensor::from(right, {u.size(0)});
  return cross_entropy(matmul(u, transpose(v)) * (1 / tau), labels);
}

// With rows of length 1, the sum of the cosines of all pairs i != j is |sum of all rows|² - N.
double diversity(const Tensor& rows) {
  const double n = static_cast<double>(rows.size(0));
  const Tensor unit = normalize(rows);  // each row has length 1
  const double length = norm(sum(unit, {0})).item();
  return 1 - (length * length - n) / (n * (n - 1));
}

}  // namespace mtcki::course

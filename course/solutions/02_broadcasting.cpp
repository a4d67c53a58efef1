// Solution 2: broadcasting and its adjoint (docs/course/02_broadcasting.md).
#include <algorithm>

#include "course/course.h"
#include "tensor/error.h"
#include "tensor/ops/reduce.h"

namespace mtcki::course {

// The size of dimension i of a shape that is filled up with ones on its left to `rank` dimensions.
static int64_t size_at(const Shape& shape, int rank, int i) {
  const int missing = rank - shape.rank();
  return i < missing ? 1 : shape[i - missing];
}

Shape broadcast_shape(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  std::vector<int64_t> result;
  for (int i = 0; i < rank; ++i) {
    const int64_t x = size_at(a, rank, i), y = size_at(b, rank, i);
    if (x != y && x != 1 && y != 1)
      throw ShapeError("cannot broadcast " + a.to_string() + " and " + b.to_string());
    result.push_back(x == 1 ? y : x);
  }
  return Shape(result);
}

// Every element of the small tensor was copied to several places, so its gradient is the sum of
// theirs: sum() over the dimensions that `shape` lacks or has as 1, then reshape().
Tensor sum_back(const Tensor& gy, const Shape& shape) {
  std::vector<int> dims;
  for (int i = 0; i < gy.rank(); ++i)
    if (size_at(shape, gy.rank(), i) == 1) dims.push_back(i);
  return (dims.empty() ? gy : sum(gy, dims)).reshape(shape);
}

}  // namespace mtcki::course

#include "tensor/shape.h"

#include "tensor/context.h"
#include "tensor/error.h"

namespace mtcki {

Shape::Shape(std::initializer_list<int64_t> dims) {
  for (int64_t d : dims) push_back(d);
}

Shape::Shape(const std::vector<int64_t>& dims) {
  for (int64_t d : dims) push_back(d);
}

void Shape::push_back(int64_t value) {
  if (rank_ == kMaxRank) throw ShapeError("Shape: at most 8 dimensions");
  dims_[rank_++] = value;
}

int Shape::check(int i) const {
  const int k = i < 0 ? i + rank_ : i;
  if (k < 0 || k >= rank_)
    throw ShapeError(str("Shape: dimension ", i, " of ", to_string(), ", which has rank ", rank_));
  return k;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i) text += ", ";
    text += std::to_string(dims_[i]);
  }
  return text + "]";
}

Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b) {
  const int rank = a.rank() > b.rank() ? a.rank() : b.rank();
  std::vector<int64_t> dims(static_cast<size_t>(rank));
  for (int i = 1; i <= rank; ++i) {
    const int64_t x = i <= a.rank() ? a[-i] : 1, y = i <= b.rank() ? b[-i] : 1;
    if (x != y && x != 1 && y != 1) {
      const std::string path = context_path();
      throw ShapeError(str(op, ": shapes ", a, " and ", b, " do not broadcast: dimension ", -i,
                           " is ", x, " and ", y, "; equal sizes or 1 are needed",
                           path.empty() ? "" : "\n  in  ", path));
    }
    dims[static_cast<size_t>(rank - i)] = x == 1 ? y : x;
  }
  return Shape(dims);
}

}  // namespace mtcki

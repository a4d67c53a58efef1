// Shape: up to eight dimensions, a value type.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

namespace mtcki {

class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(const std::vector<int64_t>& dims);

  int rank() const { return rank_; }
  // Negative indices count from the end, as in Python. Throws ShapeError outside the rank.
  int64_t operator[](int i) const { return dims_[check(i)]; }
  void set(int i, int64_t value) { dims_[check(i)] = value; }
  void push_back(int64_t value);
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  std::vector<int64_t> vec() const { return {begin(), end()}; }
  std::string to_string() const;  // "[256, 3, 32, 32]"

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.dims_[i] != b.dims_[i]) return false;
    return true;
  }
  friend bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }
  friend std::ostream& operator<<(std::ostream& o, const Shape& s) { return o << s.to_string(); }

 private:
  int check(int i) const;
  int64_t dims_[kMaxRank] = {};
  int rank_ = 0;
};

// NumPy broadcasting of two shapes; throws ShapeError naming `op` when they do not fit.
Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b);

}  // namespace mtcki

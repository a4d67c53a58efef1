// What judges an exercise. Each check says what it looked at and, where it is wrong, what it got and
// what it expected.
#pragma once

#include <string>

#include "course/course.h"

namespace mtcki::course {

class Judge {
 public:
  explicit Judge(bool full) : full_(full) {}
  // Whether the reader has asked for the long form of a chapter (--full).
  bool full() const { return full_; }
  int wrong() const { return wrong_; }

  void check(const std::string& what, bool right, const std::string& detail = "");
  void equal(const std::string& what, double got, double wanted, double tolerance = 1e-6);
  // Equal shapes, and |got - wanted| <= tolerance * max(1, max |wanted|) everywhere.
  void close(const std::string& what, const Tensor& got, const Tensor& wanted,
             double tolerance = 1e-5);

 private:
  bool full_;
  int wrong_ = 0;
};

// A chapter makes itself known: `const Chapter chapter(3, "title", check);`
struct Chapter {
  Chapter(int number, const char* title, void (*check)(Judge&));
};

}  // namespace mtcki::course

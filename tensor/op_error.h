// Builds the error text of an op: the rule that was broken, every operand, the module path.
//
//   OpError("conv2d", "input", x, "weight", w)
//       .shape("weight expects ", w.size(1), " input channels, input has ", x.size(1));
//
//   conv2d: weight expects 64 input channels, input has 32
//     input   [256, 32, 16, 16] f32 cpu
//     weight  [128, 64, 3, 3]   f32 cpu
//     in      distill/teacher[1]/layer2.0.conv1
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tensor/error.h"
#include "tensor/tensor.h"

namespace mtcki {

class OpError {
 public:
  // operands: a name and a tensor each.
  template <class... Operands>
  explicit OpError(const char* op, const Operands&... operands) : op_(op) {
    add(operands...);
  }
  OpError& operand(const char* name, const Tensor& t) {
    operands_.emplace_back(name, t);
    return *this;
  }
  OpError& hint(const std::string& text) {
    hint_ = text;
    return *this;
  }
  // Each of these throws.
  template <class... Args>
  [[noreturn]] void shape(const Args&... args) const {
    throw ShapeError(text(str(args...)));
  }
  template <class... Args>
  [[noreturn]] void dtype(const Args&... args) const {
    throw DTypeError(text(str(args...)));
  }
  template <class... Args>
  [[noreturn]] void device(const Args&... args) const {
    throw DeviceError(text(str(args...)));
  }
  template <class... Args>
  [[noreturn]] void argument(const Args&... args) const {
    throw Error(text(str(args...)));
  }

 private:
  void add() {}
  template <class... More>
  void add(const char* name, const Tensor& t, const More&... more) {
    operand(name, t);
    add(more...);
  }
  std::string text(const std::string& rule) const;
  const char* op_;
  std::vector<std::pair<const char*, Tensor>> operands_;
  std::string hint_;
};

// Frequent checks.
void check_rank(const char* op, const char* name, const Tensor& t, int rank);
void check_floating(const char* op, const char* name, const Tensor& t);
void check_same_shape(const char* op, const char* a_name, const Tensor& a, const char* b_name,
                      const Tensor& b);
void check_same_dtype_device(const char* op, const char* a_name, const Tensor& a,
                             const char* b_name, const Tensor& b);

}  // namespace mtcki

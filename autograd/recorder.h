// Recorder: how an op becomes differentiable. Its backward stands directly under its forward, one
// closure per input that needs a gradient, and every tensor a closure keeps is declared by save():
//
//   Variable mul(const Variable& a, const Variable& b) {
//     Recorder r("mul", {a, b});
//     Tensor y = mul(a.data(), b.data());
//     if (r.needs(0))
//       r.grad(0, [b = r.save(b.data())](const Tensor& gy) { return mul(gy, b.get()); });
//     if (r.needs(1))
//       r.grad(1, [a = r.save(a.data())](const Tensor& gy) { return mul(gy, a.get()); });
//     return r.finish(y);
//   }
//
// So a frozen input costs neither its gradient nor the activation for one. Closures must not
// capture Variables (a captured output would be a reference cycle); save() takes Tensors only.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "tensor/ops/gradient_sum.h"

namespace mtcki {

// A value that the backward computes again instead of keeping it. The op that made it leaves the
// recipe; ops that save it share the result.
struct Recipe {
  std::function<Tensor()> compute;
  uint32_t version = 0;  // of the tensor it repeats
  Tensor result;
  int stream = 0;  // that computed it
};

// A tensor kept for the backward, with the version it had, or its recipe. get() throws
// GradientError, naming op and versions, when the tensor was written in place since, or when the
// graph was already released.
class SavedTensor {
 public:
  SavedTensor() = default;
  const Tensor& get() const;

 private:
  friend class Recorder;
  friend struct Node;
  struct Slot {
    Tensor tensor;
    std::shared_ptr<Recipe> recipe;  // in place of the tensor
    uint32_t version = 0;
    std::string op;
    bool released = false;
  };
  std::shared_ptr<Slot> slot_;
};

using GradFn = std::function<Tensor(const Tensor& gy)>;
using JointGradFn = std::function<std::vector<Tensor>(const Tensor& gy)>;
// Adds the gradient of the first of its inputs to what was gathered for it; returns those of the
// others. gy may be written over when it is unique().
using GatherFn = std::function<std::vector<Tensor>(Tensor gy, GradientSum* first)>;

class Recorder {
 public:
  Recorder(const char* op, std::initializer_list<Variable> inputs);
  Recorder(const char* op, const std::vector<Variable>& inputs);

  // Whether input i takes part in differentiation (defined, requires a gradient, grad enabled).
  bool needs(int i) const;
  bool needs_any() const;
  SavedTensor save(const Tensor& tensor);
  // The value of input i, or the recipe that its op left.
  SavedTensor save_input(int i);

  void grad(int input, GradFn fn);
  // One closure for several inputs (batch norm, conv with bias): it returns as many tensors as
  // `inputs`, undefined for those that do not need one.
  void grad(std::vector<int> inputs, JointGradFn fn);
  // For ops that save a pass over memory by adding to the other gradients themselves.
  void gather(std::vector<int> inputs, GatherFn fn);

  // Wraps the output. Call once, last. recipe: repeats y, bit for bit, from what this op saved.
  Variable finish(const Tensor& y, std::function<Tensor()> recipe = nullptr);

 private:
  std::string op_;
  std::vector<Variable> inputs_;
  std::shared_ptr<Node> node_;
};

}  // namespace mtcki

// Node: one recorded op, or the place where a leaf's gradient is collected. Internal to autograd.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autograd/recorder.h"
#include "autograd/side_stream.h"
#include "autograd/variable.h"

namespace mtcki {

struct Variable::Impl {
  Tensor data;
  Tensor grad;
  bool requires_grad = false;
  bool retain_grad = false;
  std::shared_ptr<Node> node;      // the op that made it, or a leaf's collector (made on first use)
  std::shared_ptr<Recipe> recipe;  // null: none
};

struct Node {
  struct Closure {
    std::vector<int> inputs;  // indices into next
    JointGradFn fn;
    GatherFn gather;  // one of the two
  };

  explicit Node(bool leaf = false);
  ~Node();  // iterative: a chain of a million nodes must not overflow the stack
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  std::string op;
  std::string module;     // module path of the forward
  uint64_t sequence = 0;  // order of creation
  // Place in the backward, larger runs first: the sequence of the newest recorded input, its own
  // where all inputs are leaves. A loss term over an early layer so makes its gradient when that
  // layer's turn has come, and not at the start, where all of them would wait in memory.
  uint64_t turn = 0;
  Shape shape;  // of the output
  DType dtype = DType::f32;
  int stream = 0;                           // of the forward, and so of the backward
  std::vector<std::shared_ptr<Node>> next;  // per input; null where no gradient is wanted
  std::vector<Closure> closures;
  std::vector<std::shared_ptr<SavedTensor::Slot>> saved;
  std::weak_ptr<Variable::Impl> variable;  // leaf to add to, or output that retains its gradient
  const bool is_leaf;
  bool released = false;

  GradientSum pending;         // gradients gathered during one backward
  StreamSet pending_from = 0;  // the streams that made them

  // Drops closures, saved tensors and inputs: after its turn in backward a node keeps no memory.
  void release();

 private:
  void drop_inputs();
};

// Whether a gradient of this dtype may be kept for a leaf: its own, or bf16 beside f32 on the GPU,
// where convolutions compute it so and optimisers take it as it is.
bool is_gradient_type(DType gradient, DType leaf, Device device);

int64_t live_nodes();  // recorded ops; the collectors of leaves do not count

}  // namespace mtcki

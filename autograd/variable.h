// Variable: a Tensor that may want a gradient, and the graph that computes it. Eager reverse mode,
// first order. A graph lives as long as the Variables and nodes that reach it and is released by
// backward() unless it is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

struct Node;

class Variable {
 public:
  Variable() = default;  // undefined
  // A constant, or a leaf that collects .grad().
  Variable(const Tensor& data, bool requires_grad = false);  // NOLINT: implicit, ops mix both
  bool defined() const { return impl_ != nullptr; }

  const Tensor& data() const;
  // Replaces the values of a leaf (optimisers, loading). Throws GradientError on a non-leaf.
  void set_data(const Tensor& data);

  bool requires_grad() const;
  // Only on leaves.
  void set_requires_grad(bool on);
  bool is_leaf() const;

  // The gradient collected so far; undefined before the first backward. Of an f32 parameter on the
  // GPU it may be bf16 as long as it has one term; sums are f32.
  const Tensor& grad() const;
  void set_grad(const Tensor& grad);
  void zero_grad() { set_grad({}); }
  // Keep the gradient of a non-leaf too.
  void retain_grad();

  // Same values, no history.
  Variable detach() const;

  // d(this)/d(leaves), added to their .grad(). Without `seed` this must have one element.
  // keep_graph: saved tensors stay for a second call.
  void backward(const Tensor& seed = {}, bool keep_graph = false) const;

  const Shape& shape() const { return data().shape(); }
  int64_t size(int dim) const { return data().size(dim); }
  int64_t numel() const { return data().numel(); }
  double item() const { return data().item(); }
  // sum() and mean() of autograd/functions.h.
  Variable sum(const std::vector<int>& dims = {}, bool keepdim = false) const;
  Variable mean(const std::vector<int>& dims = {}, bool keepdim = false) const;

  struct Impl;  // autograd/node.h
  const std::shared_ptr<Impl>& impl() const { return impl_; }

 private:
  friend class Recorder;
  std::shared_ptr<Impl> impl_;
};

// While alive on this thread, functions record nothing (evaluation, frozen history).
class NoGradScope {
 public:
  NoGradScope();
  ~NoGradScope();
  NoGradScope(const NoGradScope&) = delete;
  NoGradScope& operator=(const NoGradScope&) = delete;
};
bool grad_enabled();

// Counts graph nodes: a training step that leaks its graph shows here.
class LeakCheckScope {
 public:
  LeakCheckScope();
  // Nodes alive now minus nodes alive at construction.
  int64_t alive() const;

 private:
  int64_t before_;
};

// Graph of `root` in Graphviz DOT: op, shape, bytes held by saved tensors.
std::string graph_dot(const Variable& root);
// Bytes of the distinct storages that the graph of `root` keeps alive for its backward.
size_t saved_bytes(const Variable& root);

}  // namespace mtcki

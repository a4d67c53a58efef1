// The backward pass: nodes in the order of Node::turn, without recursion, on the calling thread.
#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "autograd/gradients.h"
#include "autograd/node.h"
#include "autograd/side_stream.h"
#include "tensor/context.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"

namespace mtcki {

namespace {

using NodePtr = std::shared_ptr<Node>;

std::atomic<uint64_t> next_sequence{1};
std::atomic<int64_t> alive{0};
thread_local bool passes_leaves_by = false;  // within gradients()

// "mul in layer2.0" for error texts.
std::string where(const Node& node) {
  return node.module.empty() ? node.op : node.op + " in " + node.module;
}

// The nodes whose gradient waits, the one with the latest turn on top. Whatever uses a node's
// output has a later turn (of two with the same turn, it is younger), so the node's gradient is
// complete when it comes up.
class ReadyNodes {
 public:
  ~ReadyNodes() {  // after an error: no gradient may stay behind for the next backward
    for (const NodePtr& node : heap_) {
      node->pending = GradientSum();
      node->pending_from = 0;
    }
  }
  bool empty() const { return heap_.empty(); }
  void push(const NodePtr& node) {
    heap_.push_back(node);
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  NodePtr pop() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    NodePtr node = std::move(heap_.back());
    heap_.pop_back();
    return node;
  }

 private:
  static bool later(const NodePtr& a, const NodePtr& b) {
    return a->turn != b->turn ? a->turn < b->turn : a->sequence < b->sequence;
  }
  std::vector<NodePtr> heap_;
};

void accumulate(Tensor* into, Tensor g) {
  GradientSum sum(std::exchange(*into, Tensor()));
  sum.add(std::move(g));
  *into = sum.take();
}

// Into the .grad() that the user sees: in the variable's layout, and never sharing bytes with
// another gradient, because clipping and optimisers write in place. A bf16 gradient of an f32
// variable stays so while it is the only one.
void accumulate_grad(Variable::Impl* variable, Tensor g) {
  if (variable->grad.defined() || !g.only_handle() ||
      (g.rank() == variable->data.rank() && g.layout() != variable->data.layout()))
    join_weight_gradients();
  if (variable->grad.defined()) {
    variable->grad = variable->grad.to(variable->data.dtype());
    g = g.to(variable->data.dtype());
  }
  if (g.rank() == variable->data.rank()) g = g.to(variable->data.layout());
  if (!variable->grad.defined() && !g.only_handle()) g = g.clone();
  accumulate(&variable->grad, std::move(g));
}

void check_gradient(const Node& from, int input, const Node& to, const Tensor& g) {
  const bool fits =
      to.is_leaf ? is_gradient_type(g.dtype(), to.dtype, g.device()) : g.dtype() == to.dtype;
  if (g.shape() == to.shape && fits) return;
  throw GradientError(str("backward of ", where(from), ": its gradient for input ", input, " is ",
                          g.describe(), ", but the input is ", to.shape, " ", name_of(to.dtype),
                          "; the closure that the op recorded is wrong"));
}

// add(&node->pending) on the current stream, after those that have added to it.
template <class Add>
void add_to_pending(Node* node, const Add& add) {
  wait_streams(node->pending_from);
  add(&node->pending);
  node->pending_from |= current_stream_bit();
}

void deliver(const Node& node, int input, Tensor g, ReadyNodes* ready) {
  const NodePtr& next = node.next[static_cast<size_t>(input)];
  if (!next || !g.defined()) return;
  check_gradient(node, input, *next, g);
  if (next->is_leaf) {
    if (passes_leaves_by) return;
    const OnStreamZero scope;  // what optimisers and users of .grad() work on
    const auto leaf = next->variable.lock();
    if (!leaf || !leaf->requires_grad) return;  // gone, or frozen since
    if (leaf->data.shape() != g.shape())
      throw GradientError(str("backward of ", where(node), ": its input ", input, " was ",
                              g.shape(), " and is ", leaf->data.shape(), " since set_data"));
    accumulate_grad(leaf.get(), std::move(g));
    return;
  }
  const bool first = !next->pending.defined();
  add_to_pending(next.get(), [&](GradientSum* sum) { sum->add(std::move(g)); });
  if (first) ready->push(next);
}

// The gradients of all inputs of a closure that gathers. That of the first is undefined where it
// has gone into what waits for a node.
std::vector<Tensor> gather(const Node& node, const Node::Closure& closure, Tensor gy,
                           ReadyNodes* ready) {
  const NodePtr& next = node.next[static_cast<size_t>(closure.inputs.front())];
  std::vector<Tensor> grads;
  if (next && !next->is_leaf) {
    const bool first = !next->pending.defined();
    add_to_pending(next.get(),
                   [&](GradientSum* sum) { grads = closure.gather(std::move(gy), sum); });
    if (first && next->pending.defined()) ready->push(next);
    grads.insert(grads.begin(), Tensor());
  } else {
    GradientSum own;
    grads = closure.gather(std::move(gy), &own);
    grads.insert(grads.begin(), own.take());
  }
  return grads;
}

// Whether the gradients of a closure go to leaves alone.
bool feeds_leaves(const Node& node, const Node::Closure& closure) {
  return std::ranges::all_of(closure.inputs, [&](int i) {
    const NodePtr& next = node.next[static_cast<size_t>(i)];
    return !next || next->is_leaf;
  });
}

void run_closures(const Node& node, Tensor gy, ReadyNodes* ready) {
  const ContextReplay replay(node.module);
  for (const Node::Closure& closure : node.closures) {
    if (passes_leaves_by && feeds_leaves(node, closure)) continue;
    const bool last = &closure == &node.closures.back();  // may have gy for itself
    std::vector<Tensor> grads =
        closure.gather ? gather(node, closure, last ? std::exchange(gy, Tensor()) : gy, ready)
                       : closure.fn(gy);
    if (grads.size() != closure.inputs.size())
      throw GradientError(str("backward of ", where(node), ": ", grads.size(), " gradients for ",
                              closure.inputs.size(), " inputs"));
    for (size_t i = 0; i < grads.size(); ++i)
      deliver(node, closure.inputs[i], std::move(grads[i]), ready);
  }
}

void run(const NodePtr& node, ReadyNodes* ready, bool keep_graph) {
  const BranchScope stream(node->stream);
  wait_streams(std::exchange(node->pending_from, 0));
  Tensor gy = node->pending.take();
  if (node->released)
    throw GradientError(str("backward of ", where(*node),
                            ": an earlier backward released this part of the graph; pass "
                            "keep_graph = true to the earlier one, or compute the value again"));
  if (const auto variable = node->variable.lock(); variable && variable->retain_grad)
    accumulate(&variable->grad, gy);
  run_closures(*node, std::move(gy), ready);
  if (!keep_graph) node->release();
}

}  // namespace

int64_t live_nodes() { return alive.load(); }

Node::Node(bool leaf) : sequence(next_sequence.fetch_add(1)), is_leaf(leaf) {
  if (!is_leaf) alive.fetch_add(1);
}

// Children that nothing else holds are moved into a list and dropped one by one.
void Node::drop_inputs() {
  std::vector<NodePtr> list;
  const auto take = [&list](std::vector<NodePtr>* from) {
    for (NodePtr& node : *from)
      if (node && node.use_count() == 1 && !node->next.empty()) list.push_back(std::move(node));
    from->clear();
  };
  take(&next);
  while (!list.empty()) {
    const NodePtr node = std::move(list.back());
    list.pop_back();
    take(&node->next);
  }
}

Node::~Node() {
  drop_inputs();
  if (!is_leaf) alive.fetch_sub(1);
}

void Node::release() {
  for (const auto& slot : saved) {
    slot->tensor = Tensor();
    slot->recipe.reset();
    slot->released = true;
  }
  closures.clear();
  saved.clear();
  drop_inputs();
  released = true;
}

void Variable::backward(const Tensor& seed, bool keep_graph) const {
  if (!requires_grad())
    throw GradientError(
        "backward: the variable requires no gradient: no input of its computation did, or it was "
        "computed under NoGradScope");
  if (!seed.defined() && numel() != 1)
    throw GradientError(str("backward: ", data().describe(),
                            " has several elements: pass the gradient to start from, or reduce it "
                            "to a scalar with sum() or mean()"));
  if (seed.defined() && (seed.shape() != shape() || seed.dtype() != data().dtype()))
    throw GradientError(str("backward: the seed is ", seed.describe(), ", the variable is ",
                            data().describe(), "; they must have the same shape and dtype"));
  const BackwardScope backward_scope;
  const SideStreamScope side_streams;
  const NoGradScope no_grad;
  const Tensor start =
      seed.defined() ? seed : Tensor::full(shape(), 1.0, data().dtype(), data().device());
  StreamSet ran_on = 1;  // stream 0, where leaves gather their gradients
  if (is_leaf()) {
    const OnStreamZero scope;
    accumulate_grad(impl_.get(), start);
  } else {
    ReadyNodes ready;
    impl_->node->pending = start;
    impl_->node->pending_from = current_stream_bit();
    ready.push(impl_->node);
    while (!ready.empty()) {
      const NodePtr node = ready.pop();
      ran_on |= StreamSet{1} << node->stream;
      run(node, &ready, keep_graph);
    }
  }
  join_side_streams();
  if (cuda::stream_index() != 0)
    wait_streams(ran_on);  // within a branch, which goes on with .grad()
}

std::vector<Tensor> gradients(const Variable& of, const std::vector<Variable>& at,
                              const Tensor& seed) {
  const auto node_of = [](const Variable& v) {
    if (v.is_leaf())
      throw GradientError("gradients: of leaves there are none here; use backward() and grad()");
    return v.impl()->node;
  };
  struct PassLeavesBy {
    PassLeavesBy() { passes_leaves_by = true; }
    ~PassLeavesBy() { passes_leaves_by = false; }
  } const scope;
  const BackwardScope backward_scope;
  const SideStreamScope side_streams;
  const NoGradScope no_grad;
  std::vector<Tensor> out(at.size());
  size_t left = at.size();
  ReadyNodes ready;
  const NodePtr start = node_of(of);
  start->pending = seed;
  start->pending_from = current_stream_bit();
  ready.push(start);
  while (left > 0 && !ready.empty()) {
    const NodePtr node = ready.pop();
    for (size_t i = 0; i < at.size(); ++i) {
      if (node_of(at[i]) != node) continue;
      wait_streams(node->pending_from);
      out[i] = node->pending.take();
      node->pending = out[i];
      --left;
    }
    if (left > 0)
      run(node, &ready, true);
    else
      node->pending = GradientSum();
  }
  if (left > 0) throw GradientError("gradients: the result does not depend on all of them");
  return out;
}

}  // namespace mtcki

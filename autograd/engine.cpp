// The backward pass: nodes in reverse order of creation, without recursion.
#include <algorithm>
#include <atomic>
#include <queue>
#include <unordered_set>

#include "autograd/node.h"
#include "tensor/context.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"

namespace mtcki {

namespace {

std::atomic<uint64_t> next_sequence{1};
std::atomic<int64_t> alive{0};

struct Later {
  bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
    return a->sequence < b->sequence;
  }
};

void accumulate(Tensor* into, const Tensor& g) {
  if (!into->defined()) {
    *into = g;
  } else if (into->unique() && into->layout() == g.layout()) {
    add_(*into, g);
  } else {
    *into = add(*into, g);
  }
}

void check_gradient(const Node& from, const Node& to, const Tensor& g) {
  if (g.shape() == to.shape && g.dtype() == to.dtype) return;
  throw GradientError(str("backward of ", from.op, ": gave a gradient ", g.describe(),
                          " for an input ", to.shape, " ", name_of(to.dtype)));
}

void run_closures(
    Node& node, const Tensor& gy,
    std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Later>& ready) {
  const ContextReplay replay(node.module);
  for (const Node::Closure& closure : node.closures) {
    std::vector<Tensor> grads = closure.fn(gy);
    if (grads.size() != closure.inputs.size())
      throw GradientError(str("backward of ", node.op, ": ", grads.size(), " gradients for ",
                              closure.inputs.size(), " inputs"));
    for (size_t i = 0; i < grads.size(); ++i) {
      const auto& next = node.next[static_cast<size_t>(closure.inputs[i])];
      if (!next || !grads[i].defined()) continue;
      check_gradient(node, *next, grads[i]);
      const bool first = !next->pending.defined();
      Tensor g = std::move(grads[i]);
      accumulate(&next->pending, g);
      if (first) ready.push(next);
    }
  }
}

}  // namespace

int64_t live_nodes() { return alive.load(); }

Node::Node() : sequence(next_sequence.fetch_add(1)) { alive.fetch_add(1); }

Node::~Node() {
  // Children that only this node holds are moved to a list and dropped one by one.
  std::vector<std::shared_ptr<Node>> list;
  const auto take = [&](std::vector<std::shared_ptr<Node>>& from) {
    for (auto& n : from)
      if (n && n.use_count() == 1) list.push_back(std::move(n));
    from.clear();
  };
  take(next);
  while (!list.empty()) {
    const std::shared_ptr<Node> node = std::move(list.back());
    list.pop_back();
    if (node.use_count() == 1) take(node->next);
  }
  alive.fetch_sub(1);
}

void Node::release() {
  for (const auto& slot : saved) {
    slot->tensor = Tensor();
    slot->released = true;
  }
  closures.clear();
  saved.clear();
  released = true;
}

void Variable::backward(const Tensor& seed, bool keep_graph) const {
  if (!requires_grad())
    throw GradientError(
        "backward: the variable requires no gradient (no input did, or it was "
        "computed under NoGradScope)");
  Tensor start = seed;
  if (!start.defined()) {
    if (numel() != 1)
      throw GradientError(str("backward: needs a seed gradient for ", data().describe(),
                              "; only a variable with one element has an obvious one"));
    start = Tensor::full(shape(), 1.0, data().dtype(), data().device());
  }
  if (start.shape() != shape())
    throw GradientError(str("backward: seed ", start.describe(), " for ", data().describe()));
  if (!impl_->node) {  // a leaf that no op has used
    accumulate(&impl_->grad, start);
    return;
  }
  const BackwardScope backward_scope;
  const NoGradScope no_grad;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Later> ready;
  std::vector<std::shared_ptr<Node>> touched;  // their pending gradients are dropped on an error
  impl_->node->pending = start;
  start = Tensor();
  ready.push(impl_->node);
  try {
    while (!ready.empty()) {
      const std::shared_ptr<Node> node = ready.top();
      ready.pop();
      touched.push_back(node);
      Tensor gy = std::move(node->pending);
      node->pending = Tensor();
      if (const auto variable = node->variable.lock();
          variable && (node->is_leaf || variable->retain_grad))
        accumulate(&variable->grad, gy);
      if (node->is_leaf) continue;
      if (node->released)
        throw GradientError(
            str("backward of ", node->op,
                ": the graph was released by an earlier backward; pass keep_graph = "
                "true to the first call, or compute the value again"));
      run_closures(*node, gy, ready);
      if (!keep_graph) node->release();
      touched.pop_back();
    }
  } catch (...) {
    while (!ready.empty()) {
      ready.top()->pending = Tensor();
      ready.pop();
    }
    for (const auto& node : touched) node->pending = Tensor();
    throw;
  }
}

}  // namespace mtcki

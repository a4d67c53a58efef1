#include "autograd/recorder.h"

#include <algorithm>

#include "autograd/node.h"
#include "tensor/context.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

const Tensor& SavedTensor::get() const {
  if (!slot_ || slot_->released)
    throw GradientError(str("backward of ", slot_ ? slot_->op : std::string("?"),
                            ": an earlier backward released the tensors saved for it; pass "
                            "keep_graph = true to the earlier one, or compute the value again"));
  if (Recipe* recipe = slot_->recipe.get()) {
    if (!recipe->result.defined()) {
      recipe->result = recipe->compute();
      recipe->stream = cuda::stream_index();
    }
    wait_streams(StreamSet{1} << recipe->stream);
    return recipe->result;
  }
  if (slot_->tensor.defined() && slot_->tensor.version() != slot_->version)
    throw GradientError(str("backward of ", slot_->op, ": a tensor it saved, ",
                            slot_->tensor.describe(), ", was written in place since (version ",
                            slot_->version, " when saved, ", slot_->tensor.version(),
                            " now); write after backward, or into a clone"));
  return slot_->tensor;
}

Recorder::Recorder(const char* op, std::initializer_list<Variable> inputs)
    : Recorder(op, std::vector<Variable>(inputs)) {}

Recorder::Recorder(const char* op, const std::vector<Variable>& inputs) : op_(op), inputs_(inputs) {
  if (!needs_any()) return;
  node_ = std::make_shared<Node>();
  node_->op = op_;
  node_->module = context_module();
  node_->stream = cuda::stream_index();
  node_->next.resize(inputs_.size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!needs(static_cast<int>(i))) continue;
    const auto& impl = inputs_[i].impl();
    if (!impl->node) {  // a leaf met for the first time
      impl->node = std::make_shared<Node>(true);
      impl->node->op = "leaf";
      impl->node->shape = impl->data.shape();
      impl->node->dtype = impl->data.dtype();
      impl->node->variable = impl;
    }
    node_->next[i] = impl->node;
    if (!impl->node->is_leaf) node_->turn = std::max(node_->turn, impl->node->sequence);
  }
  if (node_->turn == 0) node_->turn = node_->sequence;
}

bool Recorder::needs(int i) const {
  return grad_enabled() && inputs_.at(static_cast<size_t>(i)).requires_grad();
}

bool Recorder::needs_any() const {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (needs(static_cast<int>(i))) return true;
  return false;
}

SavedTensor Recorder::save(const Tensor& tensor) {
  SavedTensor saved;
  saved.slot_ = std::make_shared<SavedTensor::Slot>();
  saved.slot_->tensor = tensor;
  saved.slot_->version = tensor.defined() ? tensor.version() : 0;
  saved.slot_->op = op_;
  if (node_) node_->saved.push_back(saved.slot_);
  return saved;
}

SavedTensor Recorder::save_input(int i) {
  const auto& impl = inputs_.at(static_cast<size_t>(i)).impl();
  const std::shared_ptr<Recipe>& recipe = impl->recipe;
  if (!recipe || recipe->version != impl->data.version()) return save(impl->data);
  const SavedTensor saved = save({});
  saved.slot_->recipe = recipe;
  return saved;
}

void Recorder::grad(int input, GradFn fn) {
  grad(std::vector<int>{input},
       [fn = std::move(fn)](const Tensor& gy) { return std::vector<Tensor>{fn(gy)}; });
}

void Recorder::grad(std::vector<int> inputs, JointGradFn fn) {
  if (node_) node_->closures.push_back({std::move(inputs), std::move(fn), nullptr});
}

void Recorder::gather(std::vector<int> inputs, GatherFn fn) {
  if (node_) node_->closures.push_back({std::move(inputs), nullptr, std::move(fn)});
}

Variable Recorder::finish(const Tensor& y, std::function<Tensor()> recipe) {
  Variable out(y);
  if (!node_) return out;
  node_->shape = y.shape();
  node_->dtype = y.dtype();
  out.impl_->requires_grad = true;
  out.impl_->node = std::move(node_);
  if (recipe)
    out.impl_->recipe = std::make_shared<Recipe>(Recipe{std::move(recipe), y.version(), {}, 0});
  return out;
}

}  // namespace mtcki

#include "nn/feature_tap.h"

#include "tensor/error.h"

namespace mtcki::nn {

FeatureTap::FeatureTap(const std::vector<Module*>& modules) : state_(std::make_unique<State>()) {
  state_->modules = modules;
  state_->inputs.resize(modules.size());
  state_->runs.assign(modules.size(), 0);
  State* state = state_.get();
  for (size_t i = 0; i < modules.size(); ++i)
    handles_.push_back(modules[i]->add_before_hook([state, i](const Module&, const Variable& x) {
      state->inputs[i] = x;
      ++state->runs[i];
    }));
}

std::vector<Variable> FeatureTap::take() {
  for (size_t i = 0; i < size(); ++i) {
    if (state_->runs[i] == 1) continue;
    const std::string text =
        str("FeatureTap: module ", i, " (", state_->modules[i]->kind(), " '",
            state_->modules[i]->name(), "') ran ", state_->runs[i],
            " times since the last take(); expected one forward of the network per take()");
    clear();
    throw Error(text);
  }
  std::vector<Variable> out;
  if (state_) out = std::move(state_->inputs);
  clear();
  return out;
}

void FeatureTap::clear() {
  if (!state_) return;
  state_->inputs.assign(state_->modules.size(), Variable());
  state_->runs.assign(state_->modules.size(), 0);
}

}  // namespace mtcki::nn

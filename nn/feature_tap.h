// FeatureTap: the inputs of chosen modules during one forward, as Variables. BN-statistics losses
// read the inputs of batch norms, the contrast reads those of batch norms or stages.
//
//   FeatureTap tap(teacher.batch_norms());
//   Variable logits = teacher(x);
//   std::vector<Variable> inputs = tap.take();  // one per module, in the order given
#pragma once

#include <vector>

#include "nn/module.h"

namespace mtcki::nn {

class FeatureTap {
 public:
  FeatureTap() = default;
  // The modules must outlive the forwards that are tapped, not the tap.
  explicit FeatureTap(const std::vector<Module*>& modules);
  template <class M>
  explicit FeatureTap(const std::vector<M*>& modules)
      : FeatureTap(std::vector<Module*>(modules.begin(), modules.end())) {}

  // Inputs of the forward since the last take() or clear(), which they leave: a tap keeps no graph
  // alive. Throws Error when a module did not run, or ran more than once.
  std::vector<Variable> take();
  void clear();
  size_t size() const { return state_ ? state_->modules.size() : 0; }

 private:
  struct State {
    std::vector<Module*> modules;
    std::vector<Variable> inputs;
    std::vector<int> runs;
  };
  std::unique_ptr<State> state_;  // hooks point into it: its address survives a move of the tap
  std::vector<HookHandle> handles_;
};

}  // namespace mtcki::nn

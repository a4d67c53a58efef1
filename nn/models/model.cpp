#include "nn/models/model.h"

#include <utility>

#include "autograd/functions.h"

namespace mtcki::nn {

namespace {

// Collects the inputs of modules during one pass.
class Tap {
 public:
  Tap(const std::vector<Module*>& modules, bool ends_pass)
      : inputs_(modules.size()), left_(modules.size()) {
    for (size_t i = 0; i < modules.size(); ++i)
      hooks_.push_back(
          modules[i]->add_stop_hook([this, i, ends_pass](const Module& m, const Variable& x) {
            if (inputs_[i].defined())
              throw Error(str("tap of ", m.kind(), " '", m.name(), "': it ran twice in one pass"));
            inputs_[i] = x;
            return --left_ == 0 && ends_pass;
          }));
  }
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  std::vector<Variable> take(const Module& net) {
    if (left_ > 0)
      throw Error(str("tap: ", left_, " of ", inputs_.size(), " modules did not run in a pass of ",
                      net.kind(), "; are they the network's?"));
    return std::move(inputs_);
  }

 private:
  std::vector<Variable> inputs_;
  size_t left_;  // still to come
  std::vector<HookHandle> hooks_;
};

}  // namespace

Classifier::Output Classifier::pass(const Variable& x) {
  Output out;
  out.feature = trunk(x);
  if (!out.feature.defined()) return out;  // a hook has ended the pass
  if (out.feature.data().dtype() == DType::bf16) out.feature = cast(out.feature, DType::f32);
  out.logits = head(out.feature);
  return out;
}

Variable Classifier::pooled(Chain map) {
  if (keeps_map_) map_ = map.value();
  return std::move(map) | global_avg_pool;
}

Classifier::Output Classifier::features(const Variable& x, const std::vector<Module*>& tapped,
                                        bool with_map) {
  Tap tap(tapped, false);
  Output out;
  keeps_map_ = with_map;
  out.logits = call(x, [&] {
    out = pass(x);
    return out.logits;
  });
  keeps_map_ = false;
  out.map = std::exchange(map_, Variable());
  out.taps = tap.take(*this);
  return out;
}

std::vector<Variable> Classifier::taps(const Variable& x, const std::vector<Module*>& tapped) {
  if (tapped.empty()) return {};
  Tap tap(tapped, true);
  (*this)(x);
  return tap.take(*this);
}

Variable Classifier::class_weights() {
  Variable out;
  for (const Variable& p : parameters())
    if (p.shape() == Shape{num_classes_, feature_dim()}) out = p;
  return out;
}

std::vector<BatchNorm2d*> Classifier::batch_norms() {
  std::vector<BatchNorm2d*> out;
  for (auto& [path, module] : named_modules())
    if (auto* bn = dynamic_cast<BatchNorm2d*>(module)) out.push_back(bn);
  return out;
}

}  // namespace mtcki::nn

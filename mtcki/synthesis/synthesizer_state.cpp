// Synthesizer::save and load: everything but the bank's rows.
#include "mtcki/synthesis/synthesizer.h"
#include "nn/state_dict.h"

namespace mtcki {

void Synthesizer::save(StageState& state) const {
  state.step = global_step();
  state.meta["batch"] = batch_;
  state.meta["step_in_batch"] = step_;
  state.meta["synthesis_budget"] = budget_.to_json();
  state.put(loss_.bn().state_dict(), "bn.");
  if (loss_.contrast()) state.put(loss_.contrast()->state_dict(), "contrast.");
  if (config_.g_life != 1 || under_way_) state.put(generator_->state_dict(), "generator.");
  state.meta["asked"] = asked_;
  state.meta["under_way"] = under_way_;
  if (!under_way_) return;
  state.put({{"z", latents_.data().clone()}}, "latents.");
  state.put(optimizer_->state_dict(), "adam.");
  const Best kept = best();
  state.meta["best_step"] = kept.step;
  if (kept.step < 0) return;
  state.meta["best_select"] = kept.select;
  nn::StateDict tensors{{"images", communicator().all_gather(best_images_.plain())}};
  for (size_t h = 0; h < kept.local.size(); ++h) {
    if (!kept.local[h].defined()) continue;
    tensors.emplace_back(str("phi_local.", h), kept.local[h]);
    tensors.emplace_back(str("phi_global.", h), kept.global[h]);
  }
  state.put(tensors, "best.");
}

void Synthesizer::load(const StageState& state) {
  batch_ = state.meta.at("batch");
  budget_ = Budget::from_json(state.meta.at("synthesis_budget"));
  loss_.bn().load_state_dict(state.take("bn."));
  if (contrast()) contrast()->load_state_dict(state.take("contrast."));
  graph_.clear();
  under_way_ = false;
  if (state.meta.at("under_way").get<bool>()) begin();  // draws labels, makes the optimiser
  step_ = state.meta.at("step_in_batch");
  asked_ = state.meta.value("asked", std::set<size_t>{});
  const nn::StateDict weights = state.take("generator.");
  if (!weights.empty()) generator_->load_state_dict(weights);
  if (!under_way_) return;
  const Tensor z = entry(state.take("latents."), "z");
  if (!z.defined() || z.shape() != latents_.shape())
    throw DataError("synthesis state: latents are missing or of another shape");
  Tensor(latents_.data()).copy_(z);
  optimizer_->load_state_dict(state.take("adam."));
  best_step_ = state.meta.at("best_step");
  if (best_step_ < 0) return;
  best_select_ = state.meta.at("best_select");
  const nn::StateDict saved = state.take("best.");
  const Device device = inputs_.device();
  const RowRange own = rows();
  best_images_ = entry(saved, "images").slice(own.begin, own.end).clone().to(device);
  if (ring_.is_deferred()) {
    device_step_.fill_(static_cast<double>(best_step_));
    device_select_.fill_(best_select_);
  }
  if (!contrast()) return;
  best_local_.resize(contrast()->heads());
  best_global_.resize(contrast()->heads());
  for (size_t h = 0; h < best_local_.size(); ++h) {
    best_local_[h] = entry(saved, str("phi_local.", h)).to(device);
    best_global_[h] = entry(saved, str("phi_global.", h)).to(device);
  }
}

}  // namespace mtcki

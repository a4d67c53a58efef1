// Checkpoints: committed atomically, verified on load, the newest good one wins (formats.md 11).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "nn/module.h"

namespace mtcki {

// Everything the next step of a stage reads.
struct StageState {
  int64_t step = 0;
  nlohmann::json meta = nlohmann::json::object();  // position, best metric, ring pointers...
  nn::StateDict tensors;                           // "model.<param>", "optim.<slot>", "pool.images"...

  // Prefix helpers: put(state_dict, "model.") and take("model.").
  void put(const nn::StateDict& tensors, const std::string& prefix);
  nn::StateDict take(const std::string& prefix) const;
};

class CheckpointStore {
 public:
  // dir/step-00001200/{state.safetensors,state.json}; keeps the newest `keep`.
  CheckpointStore(const std::string& dir, const std::string& config_sha256, int keep = 2);
  // Commits, then prunes. A full disk: old checkpoints stay, DiskError.
  void save(const StageState& state);
  // Newest that verifies; a damaged one is named in a warning and the one before is used. Nothing there:
  // nullopt. All damaged: DataError. Made under another config: UsageError saying which keys to look at.
  std::optional<StageState> load() const;
  void remove_all();

 private:
  std::string dir_, sha_;
  int keep_;
};

}  // namespace mtcki

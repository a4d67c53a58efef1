// Checkpoints: committed atomically, verified on load, the newest good one wins.
//
//   dir/step-00001200/{state.safetensors, state.json}     dir/latest -> step-00001200
//   state.json: {"content": {format_version, config_sha256, step, meta,
//                            files: [{name, bytes, crc32c}]},
//                "crc32c": of content as compact JSON}
// Saving writes into dir/.tmp-<pid>-<step>, syncs, and renames: the rename is the commit. A process
// may die at any point: what was there before stays, and remains of dead processes are removed
// later.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "nn/module.h"

namespace mtcki {

// In a job of several ranks the first one writes; all of them read, from the same folder.

// Everything the next step of a stage reads.
struct StageState {
  int64_t step = 0;
  nlohmann::json meta =
      nlohmann::json::object();  // position, best metric, ring pointers... finite numbers
  nn::StateDict tensors;         // "model.<param>", "optim.<slot>", "pool.images"...

  // Prefix helpers: put(state_dict, "model.") and take("model.") (which drops the prefix again).
  // put: Error when a name is there already. take: empty when nothing has the prefix.
  void put(const nn::StateDict& tensors, const std::string& prefix);
  nn::StateDict take(const std::string& prefix) const;
};

class CheckpointStore {
 public:
  // Keeps the newest `keep` (at least 2, so that a damaged one has a predecessor). Creates nothing
  // yet.
  CheckpointStore(const std::string& dir, const std::string& config_sha256, int keep = 2);
  // Commits, then prunes: all but the newest `keep`, and any with a higher step (a future that was
  // rolled back). Too little room: old checkpoints beyond the newest are given up first; still too
  // little: DiskError with needed and free bytes, and what is saved stays.
  void save(const StageState& state);
  // Newest that verifies; a damaged one is named in a warning and the one before is used. Nothing
  // there: nullopt. All damaged: DataError. Made under another config: UsageError saying what to
  // do.
  std::optional<StageState> load() const;
  // The same UsageError by a look at state.json alone; damaged ones are left to load().
  void require_same_config() const;
  // The file below dir whose checksum covers the whole checkpoint of a step.
  static std::string seal_of(int64_t step);
  // Warnings of the last load() or save(), already shown on the console.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  StageState read(const std::string& folder) const;
  void require_same(const nlohmann::json& content) const;
  void warn(const std::string& text) const;
  void make_room(const StageState& state);
  void publish(const std::string& tmp, int64_t step, uint64_t bytes);

  std::string dir_, sha_;
  int keep_;
  mutable std::vector<std::string> warnings_;
};

// For the crash tests: called before each file operation of save() with its name, e.g. "rename".
using CheckpointHook = void (*)(const char* operation);
void set_checkpoint_hook(CheckpointHook hook);

}  // namespace mtcki

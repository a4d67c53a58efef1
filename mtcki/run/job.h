// A run from its first line to its last: the folder is locked, the stages are done, what came of it
// is written.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/run/preflight.h"
#include "tensor/device.h"

namespace mtcki {

struct RunJob {
  // "": the whole job; train, invert, distill: one of its stages; classifier: the held-out
  // classifier of [metrics] alone.
  std::string stage;
  std::vector<std::string> argv;  // for the manifest
  bool fresh = false;
  int64_t profile = 0;  // steps of each stage; 0: none
  Device device = {};   // for the profile
  // Called before the first stage, with the folder, which is locked by then.
  std::function<void(const std::string& folder)> prepare = {};
};

// What the stages that are not finished need: training images may be gone once the teachers are
// there.
RunNeeds needs_of(const RunConfig& config, const RunJob& job);

// Writes manifest.json, config.toml, log.txt, report.html and, of the whole job, result.json, which
// it returns; of a single stage, the same of what that stage made. Collective over the ranks of a
// job. Throws what the stages throw, after it was recorded.
nlohmann::json run_job(const RunConfig& config, const RunJob& job);

}  // namespace mtcki

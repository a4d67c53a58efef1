// What every stage of a run is given, whatever it does.
#pragma once

#include <cstdint>
#include <string>

#include "mtcki/training/compute.h"

namespace mtcki {

struct StageJob {
  std::string stage;          // "student/wrn16_1", for the log
  std::string dir;            // receives what the stage makes, and ckpt/
  std::string config_sha256;  // of what the stage depends on
  uint64_t seed = 0;
  int64_t loader_threads = 1, keep_checkpoints = 2;
  Compute compute;
};

}  // namespace mtcki

// What a run will cost, from a few steps of each stage: `mtcki run --dry-run`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/config.h"

namespace mtcki {

struct DryRunStage {
  std::string name;  // "teachers", "synthesis", "students", "metrics"
  std::string work;  // "3 x 2 epochs of 468 steps"
  double seconds = 0;
};
struct DryRun {
  std::vector<DryRunStage> stages;
  double seconds = 0;                       // all of them, from the beginning
  uint64_t memory_bytes = 0;                // of the process, at its peak
  uint64_t disk_bytes = 0, free_bytes = 0;  // of the run folder; on its file system
};

// The pieces that make up a stage's time: fixed + steps·step + images tested·test.
struct StageTimes {
  double step = 0;  // seconds per step
  double rest = 0;  // of the short run, without its steps: tests, writing
};
// From two runs that differ in their steps alone. Noise may make the longer one faster: then all of
// its time counts as steps, which is too much rather than too little.
StageTimes stage_times(double short_seconds, int64_t short_steps, double long_seconds,
                       int64_t long_steps);

// Runs the whole job three times with full batches and very few steps, in a folder of the system's
// temporary directory that is removed again; the run folder is neither read nor written. Throws
// what the run itself would throw, and Stopped.
DryRun dry_run(const RunConfig& config);
std::string dry_run_table(const DryRun& estimate);

}  // namespace mtcki

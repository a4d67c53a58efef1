// What a run will cost, from a few steps of each stage: `mtcki run --dry-run`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/config/config.h"

namespace mtcki {

struct DryRunStage {
  std::string name;  // "teachers", "synthesis", "students", "classifier", "metrics"
  std::string work;  // "3 x 2 epochs of 468 steps"
  double seconds = 0;
};
struct DryRun {
  std::vector<DryRunStage> stages;
  double seconds = 0;                       // all of them, from the beginning
  uint64_t memory_bytes = 0;                // of the process, at its peak
  uint64_t disk_bytes = 0, free_bytes = 0;  // of the run folder; on its file system
};

// A stage's time: fixed + steps·step + tested·test.
struct StageTimes {
  double step = 0;   // seconds per step
  double test = 0;   // seconds per image tested
  double fixed = 0;  // whatever is left
  double at(double steps, double tested) const { return fixed + steps * step + tested * test; }
};
struct StageSample {
  int64_t steps = 0, tested = 0;
  double seconds = 0;
};
// From a run, one with more steps, and one with more tests. Noise may make a longer run faster:
// then its whole time counts for what it had more of, which is too much rather than too little.
StageTimes stage_times(const StageSample& base, const StageSample& more_steps,
                       const StageSample& more_tests);

// Runs the whole job four times with full batches and very few steps, in a folder of the system's
// temporary directory that is removed again; the run folder is neither read nor written. Throws
// what the run itself would throw, and Stopped.
DryRun dry_run(const RunConfig& config);
std::string dry_run_table(const DryRun& estimate);

}  // namespace mtcki

// The loop that every training stage shares: steps, tests, best and last weights, checkpoints,
// resume, stop signals. What a step does is the job's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mtcki/log/run_log.h"
#include "mtcki/training/evaluate.h"
#include "mtcki/training/job.h"
#include "mtcki/training/state.h"

namespace mtcki {

struct FitJob : StageJob {  // dir receives model.safetensors, best.safetensors, ckpt/
  explicit FitJob(const StageJob& job) : StageJob(job) {}

  int64_t total_steps = 1, steps_per_epoch = 1, eval_every = 1;
  int64_t checkpoint_every = 0;  // steps; 0: at the end of each epoch
  int64_t images_per_step = 0;   // for the log

  // One optimiser step, 0-based; named values for the log. Throws NumericError before it changes
  // anything when a loss is not finite. On the GPU values may wait to be read: then it returns
  // none.
  std::function<Values(int64_t step)> step;
  // Where values wait: reads and checks those of all steps since, returns the last. Called after
  // every compute.read_every-th step and before anything is logged, tested or saved.
  std::function<Values()> read;
  std::function<Accuracy()> evaluate;
  // What its top1 is called: "agreement" where labels are what teachers say.
  std::string measure = "top1";
  std::function<void(State&)> state;
  // Writes the weights that evaluate() tested.
  std::function<void(const std::string& path, const Accuracy&)> write_model;
};

struct FitResult {
  Accuracy last;
  double top1_best = -1;
  double seconds = 0;  // over all attempts
};

// What fit() leaves in dir: the weights of the last step and those of the best evaluation.
inline std::vector<std::string> fit_files() { return {"model.safetensors", "best.safetensors"}; }
// Resumes from the newest good checkpoint in dir/ckpt. DataError when the best weights are no longer
// what an earlier attempt wrote.
FitResult fit(const FitJob& job, RunLog& log);

}  // namespace mtcki

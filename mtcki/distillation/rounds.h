// Distillation of a student as a stage of a run (docs/method.md). When steps of synthesis and of
// distillation are taken is a matter of numbers:
//
//   an epoch is `per_epoch` rounds; a round is g_steps of synthesis, with the losses against the
//   student as it is, then kd_steps of distillation from what the replay shows
//
//   the set was made before      g_steps = 0, one round per epoch
//   CMI's adversarial layout     such a set, and rounds of one batch and 2000 steps of distillation
//   DAFL, ZSKT, DFQ              no set before; 80 rounds per epoch of one step and 5
#pragma once

#include <string>

#include "mtcki/distillation/distiller.h"
#include "mtcki/training/fit.h"

namespace mtcki {

struct Rounds {
  int64_t epochs = 1, per_epoch = 1;
  int64_t g_steps = 0, kd_steps = 1;  // of a round

  int64_t steps_per_epoch() const { return per_epoch * (g_steps + kd_steps); }
  int64_t steps() const { return epochs * steps_per_epoch(); }
  int64_t all_kd_steps() const { return epochs * per_epoch * kd_steps; }

  struct Step {
    bool synthesis;
    int64_t number;  // among all steps of its kind
  };
  Step at(int64_t step) const {
    const int64_t round = step / (g_steps + kd_steps), within = step % (g_steps + kd_steps);
    if (within < g_steps) return {true, round * g_steps + within};
    return {false, round * kd_steps + within - g_steps};
  }
};

struct DistillJob : StageJob {  // as a FitJob; images of rounds are kept in dir/synth, dir/bank
  DistillConfig config;
  std::string measure = "top1";  // FitJob::measure
  RoundsConfig rounds = {};
  // With rounds:
  SynthesisConfig synthesis = {};
  Synthesizer::Options options = {};
  PoolInfo info = {};
  // The set made before, never written: its final/ and its bank are where synthesis goes on. Without
  // batches in it nothing is read, synthesis begins anew.
  std::string set_dir = {}, set_bank_dir = {}, set_sha256 = {};
};
struct DistillResult {
  FitResult fit;
  Budget budget;  // of distillation, and of synthesis in its rounds
};

// Trains `student` (fresh, or continued from a checkpoint in job.dir) on `set`, which was made
// before and may hold no images, and on what its rounds make.
DistillResult distill(const DistillJob& job, Teachers& teachers, Student& student,
                      const data::ImageSet& set, const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

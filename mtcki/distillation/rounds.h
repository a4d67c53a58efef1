// Stage C (docs/method.md): rounds of one synthesised batch with the adversarial term against the
// current student, added to the pool, and kd_steps of distillation from the pool.
#pragma once

#include <string>

#include "mtcki/distillation/distiller.h"
#include "mtcki/synthesis/stage.h"

namespace mtcki {

struct AdversarialJob {
  DistillJob distill;  // of this student; its epochs are the rounds
  AdversarialConfig config;
  SynthesisConfig synthesis;
  Synthesizer::Options options;
  data::ImageSet stage_a;   // what the student learns from of the shared set
  std::string stage_a_dir;  // the shared set, never written; its final/ is where synthesis goes on
  std::string stage_a_bank_dir;
  std::string stage_a_sha256;  // of the configuration that made it
  PoolInfo info;               // of the batches of this stage, kept in distill.dir/synth
};
struct AdversarialResult {
  FitResult fit;
  Budget budget;  // of synthesis and distillation
  int64_t images = 0;
};

AdversarialResult adversarial_rounds(const AdversarialJob& job, Teachers& teachers,
                                     Student& student, const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

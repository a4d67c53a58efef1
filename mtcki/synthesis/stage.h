// The set that is made before there is a student, as a stage of a run: pool and bank on disk,
// checkpoints, resume, log.
#pragma once

#include <string>

#include "mtcki/synthesis/bank_shards.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/synthesis/synthesizer.h"
#include "mtcki/training/job.h"

namespace mtcki {

struct SynthesisJob : StageJob {  // dir receives manifest.json, shards, ckpt/ and final/
  std::string bank_dir;
  SynthesisConfig config;
  Synthesizer::Options options;
  PoolInfo info;
};
struct SynthesisResult {
  int64_t images = 0;
  Budget budget;
  double seconds = 0;
  std::string final_state = {};  // what seals the state of dir/final, relative to dir
};

// Makes config.batches batches, without the losses that need a student; resumes from the newest good
// checkpoint. What a student's rounds continue from is left in dir/final and the bank.
SynthesisResult synthesize(const SynthesisJob& job, Teachers& teachers, RunLog& log);

// Of a finished batch: its images into the pool, and what the contrast remembers into the bank.
void store_images(const Synthesizer::Batch& batch, int64_t number, Teachers& teachers,
                  const SynthesisConfig& config, ImagePool& pool);
void store_history(const Synthesizer& synthesizer, int64_t number, BankShards& bank);
// A picture of batch `number`, 0-based, if it is one of about ten, evenly spaced in `batches`.
void show_batch(const Synthesizer::Batch& batch, int64_t number, int64_t batches,
                const std::string& stage, int64_t step, RunLog& log);

}  // namespace mtcki

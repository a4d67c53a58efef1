// Stage A as a stage of a run: pool and bank on disk, checkpoints, resume, log.
#pragma once

#include <string>

#include "mtcki/synthesis/bank_shards.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/synthesis/synthesizer.h"

namespace mtcki {

struct SynthesisJob {
  std::string dir;  // receives manifest.json, shards, ckpt/ and final/
  std::string bank_dir;
  std::string config_sha256;
  SynthesisConfig config;
  Synthesizer::Options options;
  PoolInfo info;
  int64_t keep_checkpoints = 2;
};
struct SynthesisResult {
  int64_t images = 0;
  Budget budget;
  double seconds = 0;
  std::string final_state = {};  // what seals the state of dir/final, relative to dir
};

// Makes config.batches batches; resumes from the newest good checkpoint. What stage C continues
// from is left in dir/final and the bank.
SynthesisResult synthesize(const SynthesisJob& job, Teachers& teachers, RunLog& log);

// One finished batch into pool and bank.
void store_batch(const Synthesizer::Batch& batch, int64_t number, Teachers& teachers,
                 const Synthesizer& synthesizer, ImagePool& pool, BankShards& bank);

}  // namespace mtcki

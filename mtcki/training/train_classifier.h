// Supervised training of a classifier on real images: teachers and the held-out classifier
// of the metrics.
#pragma once

#include <memory>
#include <string>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/training/compute.h"
#include "mtcki/training/fit.h"
#include "nn/models/model.h"

namespace mtcki {

struct TrainJob {
  std::string stage;  // "teacher/resnet20"
  std::string dir;    // receives model.safetensors, best.safetensors, ckpt/
  std::string config_sha256;
  nn::ModelSpec spec;
  data::Normalization normalization;
  TrainConfig config;
  uint64_t seed = 0;
  int64_t loader_threads = 1, keep_checkpoints = 2;
  Compute compute;
};

FitResult train_classifier(const TrainJob& job, const data::ImageSet& train,
                           const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

// Supervised training of a classifier on real images: teachers and the held-out classifier
// of the metrics.
#pragma once

#include <memory>
#include <string>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/training/fit.h"
#include "nn/models/model.h"

namespace mtcki {

struct TrainJob : StageJob {  // dir receives model.safetensors, best.safetensors, ckpt/
  nn::ModelSpec spec;
  data::Normalization normalization;
  TrainConfig config;
};

FitResult train_classifier(const TrainJob& job, const data::ImageSet& train,
                           const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

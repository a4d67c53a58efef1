// Supervised training of a classifier on real images: teachers and the held-out classifier
// of the metrics.
#pragma once

#include "data/loader.h"
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

// Mean cross entropy of a batch, percent of it that is right, and the gradients of the loss added to
// those that are there. The batch is computed in `parts` (as many as have two images), one after the
// other, each of which needs its own part of the memory only; without batch norm the gradients are
// those of the whole, up to rounding.
struct BatchLoss {
  Tensor loss, percent_correct;
};
BatchLoss backward_in_parts(nn::Module& net, const data::Batch& batch, int64_t parts,
                            double label_smoothing);

FitResult train_classifier(const TrainJob& job, const data::ImageSet& train,
                           const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

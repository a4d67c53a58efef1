// Can a network learn at all: `mtcki run --overfit-batch`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/config/config.h"

namespace mtcki {

struct Overfit {
  std::string name;  // "teacher/vgg8"
  int64_t steps = 0;
  double first = 0, last = 0;  // cross entropy
  bool reached = false;        // last <= kOverfitLoss
};
constexpr double kOverfitLoss = 0.01;
constexpr int64_t kOverfitSteps = 500;

// Every teacher that is trained here and every student, on the first batch of the training images
// and their labels, as [train] says but with a constant rate and without weight decay, smoothing,
// averaging and augmentation, until the loss is at kOverfitLoss or kOverfitSteps are over. A sound
// network with a sensible rate gets there in some dozens of steps. Nothing is written.
std::vector<Overfit> overfit_batch(const RunConfig& config);
// A line per network.
std::string overfit_table(const std::vector<Overfit>& networks);

}  // namespace mtcki

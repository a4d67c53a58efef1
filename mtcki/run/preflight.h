// Everything that can be found wrong before anything is computed.
#pragma once

#include "mtcki/config/config.h"

namespace mtcki {

// Device, dataset name and files, model names, weight files (they exist, are read, fit their model,
// class count and input of the data), normalisation sizes, metrics, and what this command needs of
// the rest. Throws the typed exception of the problem.
struct RunNeeds {
  bool training_set = true;  // real images for a teacher that is not trained yet
  bool generator = true;
};
void preflight(const RunConfig& config, const RunNeeds& needs);

}  // namespace mtcki

// Everything that can be found wrong before anything is computed.
#pragma once

#include "mtcki/config.h"

namespace mtcki {

// Device, dataset name and files, model names, weight files (they exist, are read, fit their model,
// class count and input of the data), normalisation sizes, metrics; the generator when the command
// synthesises. Throws the typed exception of the problem.
void preflight(const RunConfig& config, bool synthesises);

}  // namespace mtcki

// The small network that projects features for a contrast loss.
#pragma once

#include <memory>

#include "nn/chain.h"

namespace mtcki {

// Linear(in, in) − ReLU − Linear(in, out), children "0", "1", "2".
std::unique_ptr<nn::Sequential> projection_head(int64_t in, int64_t out, nn::Init& init);

}  // namespace mtcki

// The report's synthetic images beside the real ones that are nearest to them.
#pragma once

#include <string>

namespace mtcki {

// From RUN/metrics/neighbours.safetensors (mtcki/evaluation/neighbours.h); as many images as fit into `bytes`
// of pictures. Empty when the run has none.
std::string neighbours_section(const std::string& folder, size_t bytes);

}  // namespace mtcki

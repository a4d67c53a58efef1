// synth10: a procedural set of ten classes of shapes and patterns, made in memory, deterministic in
// (seed, split, index). For tests, examples and machines without a network.
#pragma once

#include <cstdint>
#include <string>

#include "data/sets/dataset.h"

namespace mtcki::data {

// channels 3: 32x32 colour; 1: 28x28 grey. count <= 0: 10,000 (train) or 2,000 (test) images. Image
// i has class i % 10; position, size, angle, colours, brightness and noise are drawn per image.
ImageSet make_synth10(const std::string& split, int64_t count, uint64_t seed, int64_t channels);

}  // namespace mtcki::data

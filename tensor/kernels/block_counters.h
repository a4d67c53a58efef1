// Internal: how many blocks of a running CUDA kernel have finished a part of it, so that the last
// one can add up what all of them found. One array per stream, whose kernels follow each other;
// zero before each kernel, which leaves it zero.
#pragma once

#include <cstdint>

namespace mtcki {

inline constexpr int64_t kBlockCounters = 65535;  // as many as a grid has rows
unsigned* block_counters();                       // of the current stream

}  // namespace mtcki

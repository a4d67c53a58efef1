// Which batch size would fit, for the message of a step that ran out of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tensor/device.h"
#include "tensor/error.h"

namespace mtcki {

// Throws e's message with " train.batch_size 48 would fit." at its end. key: the name of the batch
// size. probe(n): the same step on n samples, with its update. It runs on an eighth of the batch (a
// fourth of that, and so on, where that does not fit either) and on twice that: the growth of the
// peak is the memory of a sample. The batch that follows is tried, and smaller ones until one fits.
// The run must end afterwards.
[[noreturn]] void throw_with_batch_advice(const OutOfMemoryError& e, Device device,
                                          const std::string& key, int64_t batch,
                                          const std::function<void(int64_t)>& probe);

}  // namespace mtcki

// What a piece of work costs on the device, as it would in a captured step.
#pragma once

#include <functional>

namespace mtcki::cuda {

// Microseconds of one work(), which issues kernels on the current stream and always the same ones:
// the median over launches of a graph that repeats it, so that the host has no part in the time
// (issuing a convolution of cuDNN takes longer than a small one runs). Before, it is run eagerly
// twice; where the second run took far more than three times `best` (0: none known), or nothing can
// be captured, that is the answer. Waits for the device.
double microseconds_of(const std::function<void()>& work, double best = 0);

}  // namespace mtcki::cuda

// Internal: two ways to compute the same on CUDA, of which the quicker one is wanted.
#pragma once

#include <functional>
#include <string>

namespace mtcki::conv_cuda {

// Whether `first` is quicker than `second` (cuda/timing.h); found out once per process for each
// key. `second` may say false: it cannot. While a graph is captured nothing can be timed: true for
// a new key.
bool first_is_quicker(const std::string& key, const std::function<void()>& first,
                      const std::function<bool()>& second);

}  // namespace mtcki::conv_cuda

// Where there is no CUDA, there is no cuDNN, no CUPTI and no NVTX either. For the emulated GPU of
// the tests, too.
#include "tensor/cuda/activity.h"
#include "tensor/cuda/conv.h"
#include "tensor/cuda/ranges.h"

namespace mtcki::cuda {

bool convolve(const Convolution&, bool, void*, void*, void*, std::string*) { return false; }

std::string start_activity() { return "kernel records need a build with CUDA and an NVIDIA GPU"; }
std::vector<Activity> stop_activity() { return {}; }
void clear_activity() {}
void push_activity_id(int64_t) {}
void pop_activity_id() {}

bool ranges_wanted() { return false; }
void push_range(const char*) {}
void pop_range() {}

}  // namespace mtcki::cuda

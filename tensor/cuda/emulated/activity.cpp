#include "tensor/cuda/activity.h"

namespace mtcki::cuda {

std::string start_activity() { return "kernel records need a build with CUDA and an NVIDIA GPU"; }
std::vector<Activity> stop_activity() { return {}; }
void clear_activity() {}
void push_activity_id(int64_t) {}
void pop_activity_id() {}

}  // namespace mtcki::cuda

#include "tensor/cuda/ranges.h"

namespace mtcki::cuda {

bool ranges_wanted() { return false; }
void push_range(const char*) {}
void pop_range() {}

}  // namespace mtcki::cuda

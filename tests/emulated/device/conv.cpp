#include "tensor/cuda/conv.h"

namespace mtcki::cuda {

bool convolve(const Convolution&, bool, void*, void*, void*, std::string*) { return false; }

}  // namespace mtcki::cuda

// Internal to the native device: turns error codes of the CUDA libraries into exceptions.
#pragma once

#include <cuda_runtime.h>

namespace mtcki::cuda {

// Throws OutOfMemoryError for cudaErrorMemoryAllocation, else Error: "WHAT: cudaErrorX (text)" with
// the module path.
void check(cudaError_t error, const char* what);

}  // namespace mtcki::cuda

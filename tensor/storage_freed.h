// Internal: what is kept about device memory has to be forgotten when that memory is freed. The
// core calls a function here, so that it need not know who keeps something (ops/weight_copies.h).
#pragma once

#include <cstddef>

namespace mtcki {

// Called by the destructor of a storage on a CUDA device, before [data, data + bytes) is freed.
using StorageFreed = void (*)(const void* data, size_t bytes);
void on_cuda_storage_freed(StorageFreed function);  // the only one; there is one keeper

}  // namespace mtcki

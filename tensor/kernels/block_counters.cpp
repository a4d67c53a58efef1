#include "tensor/kernels/block_counters.h"

#include <map>
#include <mutex>

#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"

namespace mtcki {

unsigned* block_counters() {
  constexpr size_t kBytes = kBlockCounters * sizeof(unsigned);
  static std::mutex mutex;
  static auto* by_stream = new std::map<int, unsigned*>;  // until the process ends
  const std::lock_guard<std::mutex> lock(mutex);
  unsigned*& counters = (*by_stream)[cuda::stream_index()];
  if (!counters) {
    void* fresh = keep_device_memory(kBytes, "the counters of the first reduction of a stream");
    cuda::set_bytes(fresh, 0, kBytes);
    counters = static_cast<unsigned*>(fresh);
  }
  return counters;
}

}  // namespace mtcki

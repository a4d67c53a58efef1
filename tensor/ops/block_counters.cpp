#include "tensor/ops/block_counters.h"

#include <map>
#include <mutex>

#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

unsigned* block_counters() {
  constexpr size_t kBytes = kBlockCounters * sizeof(unsigned);
  static std::mutex mutex;
  static auto* by_stream = new std::map<int, unsigned*>;  // until the process ends
  const std::lock_guard<std::mutex> lock(mutex);
  unsigned*& counters = (*by_stream)[cuda::stream_index()];
  if (!counters) {
    cuda::forbid_while_capturing("the first reduction of a stream");
    void* fresh = cuda::malloc_device(kBytes);
    if (!fresh) throw OutOfMemoryError("out of memory: no 256 KiB for the counters of reductions");
    cuda::set_bytes(fresh, 0, kBytes);
    counters = static_cast<unsigned*>(fresh);
  }
  return counters;
}

}  // namespace mtcki

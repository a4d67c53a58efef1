#include "mtcki/batch_advice.h"

#include <unistd.h>

#include <algorithm>

#include "tensor/allocator.h"
#include "tensor/comm.h"
#include "tensor/cuda/runtime.h"

namespace mtcki {

namespace {

// Another batch rounds up by as much as an eighth in each block (8/9 would fit), and kernels choose
// scratch memory by size.
constexpr double kUsable = 0.85;

double capacity_of(Device device) {
  if (const size_t limit = memory_limit(device)) return static_cast<double>(limit);
  if (device.is_cuda()) {  // others may use it too
    const MemoryStats here = memory_stats(device);
    return static_cast<double>(cuda::capacity().free + here.in_use + here.cached);
  }
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// Bytes that a step on n samples needs beyond what is held anyway.
double need(Device device, int64_t n, const std::function<void(int64_t)>& probe) {
  release_cached_memory(device);
  reset_peak_memory(device);
  const size_t before = memory_stats(device).in_use;
  probe(n);
  return static_cast<double>(memory_stats(device).peak - before);
}

std::string advice(Device device, const std::string& key, int64_t batch,
                   const std::function<void(int64_t)>& probe) {
  const int64_t few = std::max<int64_t>(2, batch / 8);
  if (batch <= few) return "";
  probe(few);  // what stays from the first step on: state of optimisers, copies of weights
  const double held = static_cast<double>(memory_stats(device).in_use);
  // The larger one first: a loader that is still bringing a batch must not make the smaller one
  // look dearer, and a sample cheaper, than it is.
  const double second = need(device, 2 * few, probe), first = need(device, few, probe);
  const double each = (second - first) / static_cast<double>(few);
  if (each <= 0) return "";
  const double fixed = std::max(0.0, first - each * static_cast<double>(few));
  const double room = kUsable * (capacity_of(device) - held);
  auto fits = std::min<int64_t>(batch - 1, static_cast<int64_t>((room - fixed) / each));
  // Threads that have their scratch memory at one time or one after the other make a small peak
  // differ by much, and the line through two of them by more. So the batch itself is tried.
  while (fits >= 2) {
    double needs = 2 * room;
    try {
      needs = need(device, fits, probe);
    } catch (const OutOfMemoryError&) {
    }
    if (needs <= room) break;
    fits =
        std::min<int64_t>(fits - 1, static_cast<int64_t>(static_cast<double>(fits) * room / needs));
  }
  return fits < 2 ? str(" Not even ", key, " 2 would fit.")
                  : str(" ", key, " ", fits, " would fit.");
}

}  // namespace

void throw_with_batch_advice(const OutOfMemoryError& e, Device device, const std::string& key,
                             int64_t batch, const std::function<void(int64_t)>& probe) {
  // Trying is collective, and the other ranks of a job may have had the memory.
  if (communicator().size() > 1) throw e;
  std::string more;
  try {
    more = advice(device, key, batch, probe);
  } catch (const OutOfMemoryError&) {
    more = str(" Not even an eighth of ", key, " ", batch, " fits.");
  }
  throw OutOfMemoryError(e.what() + more);
}

}  // namespace mtcki

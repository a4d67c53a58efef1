#include "mtcki/training/batch_advice.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tensor/allocator.h"
#include "tensor/comm.h"
#include "tensor/cuda/runtime.h"

namespace mtcki {

namespace {

// Another batch rounds up by as much as an eighth in each block (8/9 would fit), kernels choose
// scratch memory by size, and libraries that find no memory at all may end the program.
constexpr double kUsable = 0.85;

double capacity_of(Device device) {
  if (const size_t limit = memory_limit(device)) return static_cast<double>(limit);
  const MemoryStats here = memory_stats(device);
  const auto held = static_cast<double>(here.in_use + here.cached);
  if (device.is_cuda())  // others use it too
    return static_cast<double>(cuda::capacity().free) + held;
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  double capacity = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * page;
  rlimit address_space{};  // `ulimit -v`
  double pages = 0;
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY &&
      std::ifstream("/proc/self/statm") >> pages)
    capacity =
        std::min(capacity, static_cast<double>(address_space.rlim_cur) - pages * page + held);
  return capacity;
}

// The memory limit of a device as long as the object lives.
class LimitScope {
 public:
  LimitScope(size_t bytes, Device device) : device_(device), before_(memory_limit(device)) {
    set_memory_limit(bytes, device);
  }
  ~LimitScope() { set_memory_limit(before_, device_); }
  LimitScope(const LimitScope&) = delete;
  LimitScope& operator=(const LimitScope&) = delete;

 private:
  Device device_;
  size_t before_;
};

// Bytes that a step on n samples needs beyond what is held anyway.
double need(Device device, int64_t n, const std::function<void(int64_t)>& probe) {
  release_cached_memory(device);
  reset_peak_memory(device);
  const size_t before = memory_stats(device).in_use;
  probe(n);
  return static_cast<double>(memory_stats(device).peak - before);
}

// A batch below `batch` that fits into `usable` bytes: estimated from steps on `few` samples and on
// twice as many, then tried. OutOfMemoryError when those steps do not fit themselves.
int64_t fitting(Device device, double usable, int64_t batch, int64_t few,
                const std::function<void(int64_t)>& probe) {
  probe(few);  // what stays from the first step on: state of optimisers, copies of weights
  const double room = usable - static_cast<double>(memory_stats(device).in_use);
  // The larger one first: a loader that is still bringing a batch must not make the smaller one
  // look dearer, and a sample cheaper, than it is.
  const double second = need(device, 2 * few, probe), first = need(device, few, probe);
  const double each = std::max(1.0, second - first) / static_cast<double>(few);
  const double fixed = std::max(0.0, first - each * static_cast<double>(few));
  // Threads that have their scratch memory at one time or one after the other make a small peak
  // differ by much, and the line through two of them by more. So the batch itself is tried.
  auto fits = static_cast<int64_t>(std::clamp((room - fixed) / each, static_cast<double>(2 * few),
                                              static_cast<double>(batch - 1)));
  while (true) {
    try {
      need(device, fits, probe);
      return fits;
    } catch (const OutOfMemoryError&) {
      if (fits == 2) throw;
      fits = std::max<int64_t>(2, fits * 7 / 8);
    }
  }
}

std::string advice(Device device, const std::string& key, int64_t batch,
                   const std::function<void(int64_t)>& probe) {
  if (batch <= 4) return "";  // two samples and twice as many are no smaller
  release_cached_memory(device);
  const double usable = std::max(1.0, kUsable * capacity_of(device));
  const LimitScope limit(static_cast<size_t>(usable), device);
  int64_t refused = batch;
  for (int64_t few = std::max<int64_t>(2, batch / 8); few >= 2; few /= 4) {
    try {
      return str(" ", key, " ", fitting(device, usable, batch, few, probe), " would fit.");
    } catch (const OutOfMemoryError&) {
      refused = 2 * few;
    }
  }
  return str(" Not even ", key, " ", refused, " would fit.");
}

}  // namespace

void throw_with_batch_advice(const OutOfMemoryError& e, Device device, const std::string& key,
                             int64_t batch, const std::function<void(int64_t)>& probe) {
  // Trying is collective, and the other ranks of a job may have had the memory.
  if (communicator().size() > 1) throw e;
  throw OutOfMemoryError(e.what() + advice(device, key, batch, probe));
}

}  // namespace mtcki

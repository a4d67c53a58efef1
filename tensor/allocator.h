// Caching allocators of host and device memory. Freed blocks are kept and handed out again, so that
// a training step allocates nothing from the system after its first pass (page faults of fresh
// activations cost 5-15 % of a step on the CPU; cudaMalloc waits for the device). Small host blocks
// and device blocks are kept by size class; large host blocks come from an arena that joins freed
// neighbours (tensor/host_arena.h) and asks for huge pages. Host blocks are 64-byte aligned, device
// blocks 256-byte.
//
// A device block belongs to the pool that was current when it was taken, and returns there: each
// stream has its pool, because a block may be used again on its own stream at once, and a captured
// step (StepGraph) has one, because its replays write to the addresses of the capture. A block that
// other streams used, too, is handed out again when its own stream knows of all of that
// (cuda/stream_order.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/device.h"

namespace mtcki {

namespace cuda {
class StreamUses;
}

struct MemoryStats {
  size_t in_use = 0;                // bytes handed out
  size_t peak = 0;                  // highest in_use since the last reset_peak
  size_t cached = 0;                // bytes kept for reuse
  uint64_t system_allocations = 0;  // calls that the cache could not serve
};

// The pool that device blocks come from on this thread: 0 computes, 1.. side streams; StepGraph
// takes new ones, each with its own for the side streams. Statistics are of all pools of a device.
int device_pool();
int new_device_pool();
class DevicePoolScope {
 public:
  explicit DevicePoolScope(int pool);
  ~DevicePoolScope();
  DevicePoolScope(const DevicePoolScope&) = delete;
  DevicePoolScope& operator=(const DevicePoolScope&) = delete;

 private:
  int before_;
};
// The end of a pool of new_device_pool(): its free blocks go to the driver, which nothing else does;
// those in use will go to the pool of their stream.
void release_device_pool(int pool);
// Device memory of a library that is kept until the process ends, beside pools and statistics.
void* keep_device_memory(size_t bytes, const char* what);  // throws OutOfMemoryError

void* allocate(size_t bytes, Device device);  // throws OutOfMemoryError
// uses: of a device block, null where only its own stream had it.
void deallocate(void* data, size_t bytes, Device device,
                const cuda::StreamUses* uses = nullptr) noexcept;

MemoryStats memory_stats(Device device = {});
void reset_peak_memory(Device device = {});
void release_cached_memory(Device device = {});
// Refuse to hold more than this many bytes (0: no limit). For tests and shared machines.
void set_memory_limit(size_t bytes, Device device = {});
size_t memory_limit(Device device = {});

// Bytes by tag when in_use was highest since the last reset_peak, largest first. A tag is the stage
// and module path at allocation time; it is recorded only while enabled, for what is taken then.
void enable_memory_tags(bool on);
std::vector<std::pair<std::string, size_t>> peak_by_tag(Device device = {});

std::string human_bytes(size_t bytes);  // "1.5 GiB"

}  // namespace mtcki

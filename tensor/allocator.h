// Caching allocator of host memory. Freed blocks are kept by size class and handed out again, so
// that a training step allocates nothing from the system after its first pass (page faults of fresh
// activations cost 5-15 % of a step otherwise). 64-byte aligned; large blocks ask for huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/device.h"

namespace mtcki {

struct MemoryStats {
  size_t in_use = 0;       // bytes handed out
  size_t peak = 0;         // highest in_use since the last reset_peak
  size_t cached = 0;       // bytes kept for reuse
  uint64_t allocations = 0;         // calls
  uint64_t system_allocations = 0;  // calls that went to the system
};

void* allocate(size_t bytes, Device device);  // throws OutOfMemoryError
void deallocate(void* data, size_t bytes, Device device) noexcept;

MemoryStats memory_stats(Device device = {});
void reset_peak_memory(Device device = {});
void release_cached_memory(Device device = {});
// Refuse to hold more than this many bytes (0: no limit). For tests and shared machines.
void set_memory_limit(size_t bytes, Device device = {});

// Bytes in use by tag, largest first. A tag is the stage and module path at allocation time; it is
// recorded only while enabled.
void enable_memory_tags(bool on);
std::vector<std::pair<std::string, size_t>> memory_by_tag();

std::string human_bytes(size_t bytes);  // "1.5 GiB"

}  // namespace mtcki

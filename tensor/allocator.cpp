#include "tensor/allocator.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>

#include "tensor/context.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kLarge = size_t{1} << 20;  // from here on 2 MiB aligned, huge pages advised

// Size classes: multiples of 64 below 1 KiB, then eight steps per power of two (at most 12.5 % lost).
size_t round_up(size_t bytes) {
  if (bytes <= 1024) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const int top = 63 - __builtin_clzll(bytes - 1);
  const size_t step = (size_t{1} << top) / 8;
  return (bytes + step - 1) / step * step;
}

class HostPool {
 public:
  void* get(size_t bytes) {
    const size_t size = round_up(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    void* data = reuse(size);
    if (!data) {
      if (limit_ && stats_.in_use + size > limit_) {
        release();
        fail(bytes, "the limit set for this process");
      }
      data = from_system(size);
      if (!data) {
        release();
        data = from_system(size);
      }
      if (!data) fail(bytes, "the system");
    }
    ++stats_.allocations;
    stats_.in_use += size;
    if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
    if (tagging_) {
      std::string tag = context_path();
      tags_[tag] += size;
      owner_[data] = std::move(tag);
    }
    return data;
  }

  void put(void* data, size_t bytes) {
    const size_t size = round_up(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.in_use -= size;
    stats_.cached += size;
    free_[size].push_back(data);
    if (!owner_.empty()) {
      const auto it = owner_.find(data);
      if (it != owner_.end()) {
        tags_[it->second] -= size;
        owner_.erase(it);
      }
    }
  }

  MemoryStats stats() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.peak = stats_.in_use;
  }
  void release_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    release();
  }
  void limit(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
  }
  void tagging(bool on) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tagging_ = on;
    if (!on) {
      tags_.clear();
      owner_.clear();
    }
  }
  std::vector<std::pair<std::string, size_t>> by_tag() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::multimap<size_t, std::string, std::greater<>> sorted;
    for (const auto& [tag, size] : tags_)
      if (size) sorted.emplace(size, tag);
    std::vector<std::pair<std::string, size_t>> out;
    for (const auto& [size, tag] : sorted) out.emplace_back(tag, size);
    return out;
  }

 private:
  // Only blocks of exactly this class: put() knows the requested size, hence the class, and no more.
  void* reuse(size_t size) {
    const auto it = free_.find(size);
    if (it == free_.end() || it->second.empty()) return nullptr;
    void* data = it->second.back();
    it->second.pop_back();
    stats_.cached -= size;
    return data;
  }
  void* from_system(size_t size) {
    const size_t alignment = size >= kLarge ? size_t{2} << 20 : kAlignment;
    void* data = nullptr;
    if (posix_memalign(&data, alignment, size) != 0) return nullptr;
    if (size >= kLarge) madvise(data, size, MADV_HUGEPAGE);
    ++stats_.system_allocations;
    return data;
  }
  void release() {
    for (auto& [size, blocks] : free_) {
      for (void* data : blocks) std::free(data);
      stats_.cached -= size * blocks.size();
    }
    free_.clear();
  }
  [[noreturn]] void fail(size_t bytes, const char* who) {
    const std::string where = context_path();
    throw OutOfMemoryError(str("out of memory: ", who, " refused ", human_bytes(bytes),
                               "; in use ", human_bytes(stats_.in_use), ", peak ",
                               human_bytes(stats_.peak), ", cached ", human_bytes(stats_.cached),
                               limit_ ? ", limit " + human_bytes(limit_) : std::string(),
                               where.empty() ? "" : " (in " + where + ")",
                               ". A smaller batch_size needs proportionally less."));
  }

  std::mutex mutex_;
  std::unordered_map<size_t, std::vector<void*>> free_;
  std::unordered_map<void*, std::string> owner_;
  std::map<std::string, size_t> tags_;
  MemoryStats stats_;
  size_t limit_ = 0;
  bool tagging_ = false;
};

// Never destroyed: tensors with static lifetime may be freed after it otherwise.
HostPool& host() {
  static auto* pool = new HostPool;
  return *pool;
}

void only_host(Device device) {
  if (!device.is_cpu()) throw DeviceError("allocate: this build has no CUDA memory; use --device cpu");
}

}  // namespace

void* allocate(size_t bytes, Device device) {
  only_host(device);
  return bytes ? host().get(bytes) : nullptr;
}

void deallocate(void* data, size_t bytes, Device) noexcept {
  if (data) host().put(data, bytes);
}

MemoryStats memory_stats(Device device) {
  only_host(device);
  return host().stats();
}
void reset_peak_memory(Device device) {
  only_host(device);
  host().reset_peak();
}
void release_cached_memory(Device device) {
  only_host(device);
  host().release_all();
}
void set_memory_limit(size_t bytes, Device device) {
  only_host(device);
  host().limit(bytes);
}
void enable_memory_tags(bool on) { host().tagging(on); }
std::vector<std::pair<std::string, size_t>> memory_by_tag() { return host().by_tag(); }

std::string human_bytes(size_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int u = 0;
  while (value >= 1024 && u < 4) {
    value /= 1024;
    ++u;
  }
  char text[32];
  std::snprintf(text, sizeof text, u ? "%.1f %s" : "%.0f %s", value, units[u]);
  return text;
}

}  // namespace mtcki

#include "tensor/allocator.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "tensor/context.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/stream_order.h"
#include "tensor/error.h"
#include "tensor/host_arena.h"

namespace mtcki {

namespace {

constexpr size_t kAlignment = 64;
constexpr int kFirstOwnPool = 1 << 16;              // new_device_pool() counts from here
constexpr int kStreamsOfPool = cuda::kMostStreams;  // so many numbers does a pool take
constexpr size_t kLarge = size_t{64} << 10;         // host blocks from here on come from the arena

size_t round_up_to(size_t step, size_t bytes) { return (bytes + step - 1) / step * step; }
// Size classes: multiples of 64 below 1 KiB, then eight steps per power of two (at most 12.5 %
// lost).
size_t size_class(size_t bytes) {
  if (bytes <= 1024) return round_up_to(kAlignment, bytes);
  const int top = 63 - __builtin_clzll(bytes - 1);
  return round_up_to((size_t{1} << top) / 8, bytes);
}

// Where a cache gets its blocks from.
struct HostSource {
  static constexpr const char* name = "the system";
  static constexpr bool arena = true;  // for large blocks
  static void* get(size_t size) { return std::aligned_alloc(kAlignment, size); }
  static void put(void* data) { std::free(data); }
  static int pool() { return 0; }
  static bool in_use(int, const cuda::StreamUses*) { return false; }
  static bool has_no_room(size_t) { return false; }
  static std::string capacity() { return ""; }  // not asked for
  static bool caching() { return true; }
};
struct DeviceSource {
  static constexpr const char* name = "the GPU";
  static constexpr bool arena = false;  // captured steps and streams need pools of whole blocks
  static void* get(size_t size) {
    cuda::forbid_while_capturing("new memory from the driver");
    return cuda::malloc_device(size);
  }
  static void put(void* data) { cuda::free_device(data); }
  static int pool() { return device_pool(); }
  static bool in_use(int pool, const cuda::StreamUses* uses) {
    return uses && !uses->known_to(pool % kStreamsOfPool);
  }
  static bool has_no_room(size_t size) { return cuda::capturing() && cuda::capacity().free < size; }
  static std::string capacity() {
    const cuda::Capacity c = cuda::capacity();
    return str(", capacity ", human_bytes(c.total), " (", human_bytes(c.free), " free)");
  }
  // MTCKI_CUDA_ALLOC=plain: every block from the driver and back at once, with its exact size, so
  // that compute-sanitizer sees accesses beside it. Not with captured steps.
  static bool caching() {
    static const bool on = [] {
      const char* text = std::getenv("MTCKI_CUDA_ALLOC");
      return !text || std::string(text) != "plain";
    }();
    return on;
  }
};

template <class Source>
class Cache {
 public:
  void* get(size_t bytes) {
    const size_t size = block_size(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    const int pool = Source::pool();
    if (limit_ && stats_.in_use + size > limit_) {
      release();
      fail(bytes, "the limit set for this process");
    }
    void* data = reuse(pool, size);
    if (!data) {
      // A capture may not ask the driver; that there is nothing left is the better reason.
      if (Source::has_no_room(size)) fail(bytes, Source::name);
      data = fresh(size);
      if (!data) {
        release();
        data = fresh(size);
      }
      if (!data) fail(bytes, Source::name);
      ++stats_.system_allocations;
      if (pool != 0) pool_of_[data] = pool;
    }
    stats_.in_use += size;
    if (tagging_) {
      std::string tag = context_path();
      tags_[tag] += size;
      owner_[data] = std::move(tag);
      if (stats_.in_use > stats_.peak) tags_at_peak_ = tags_;
    }
    if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
    return data;
  }

  void put(void* data, size_t bytes, const cuda::StreamUses* uses = nullptr) {
    const size_t size = block_size(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.in_use -= size;
    const auto owner = pool_of_.find(data);
    const int pool = owner == pool_of_.end() ? 0 : owner->second;
    if (in_arena(size)) {
      arena_.give(data, size);
    } else if (Source::caching()) {
      stats_.cached += size;
      if (Source::in_use(pool, uses)) {
        held_[pool].blocks.push_back({size, data, *uses});
      } else {
        free_[pool][size].push_back(data);
      }
    } else if (owner != pool_of_.end()) {
      pool_of_.erase(owner);
    }
    if (!owner_.empty()) {
      const auto it = owner_.find(data);
      if (it != owner_.end()) {
        tags_[it->second] -= size;
        owner_.erase(it);
      }
    }
    if (!Source::caching()) Source::put(data);
  }

  MemoryStats stats() {
    const std::lock_guard<std::mutex> lock(mutex_);
    MemoryStats all = stats_;
    all.cached += arena_.free_bytes();
    return all;
  }
  void reset_peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.peak = stats_.in_use;
    tags_at_peak_ = tags_;
  }
  void release_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    release();
  }
  void end_pool(int pool) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_held(pool, true);
    if (const auto it = free_.find(pool); it != free_.end()) {
      release_sizes(it->second);
      free_.erase(it);
    }
    const int heir = pool % kStreamsOfPool;  // of the same stream
    for (auto it = pool_of_.begin(); it != pool_of_.end();) {
      if (it->second == pool) it->second = heir;
      it = it->second == 0 ? pool_of_.erase(it) : std::next(it);
    }
  }
  void limit(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
  }
  size_t limit() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return limit_;
  }
  void tagging(bool on) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tagging_ = on;
    tags_.clear();
    tags_at_peak_.clear();
    owner_.clear();
  }
  std::vector<std::pair<std::string, size_t>> peak_by_tag() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::multimap<size_t, std::string, std::greater<>> sorted;
    for (const auto& [tag, size] : tags_at_peak_)
      if (size) sorted.emplace(size, tag);
    std::vector<std::pair<std::string, size_t>> out;
    for (const auto& [size, tag] : sorted) out.emplace_back(tag, size);
    return out;
  }

 private:
  static bool in_arena(size_t size) { return Source::arena && size >= kLarge; }
  static size_t block_size(size_t bytes) {
    if (!Source::caching()) return bytes;
    return in_arena(bytes) ? round_up_to(kAlignment, bytes) : size_class(bytes);
  }

  void* fresh(size_t size) { return in_arena(size) ? arena_.extend(size) : Source::get(size); }

  // Without the arena only blocks of exactly this class: put() knows the requested size, hence the
  // class, and no more.
  void* reuse(int pool, size_t size) {
    if (in_arena(size)) return arena_.take(size);
    free_held(pool, false);
    const auto of_pool = free_.find(pool);
    if (of_pool == free_.end()) return nullptr;
    const auto it = of_pool->second.find(size);
    if (it == of_pool->second.end() || it->second.empty()) return nullptr;
    void* data = it->second.back();
    it->second.pop_back();
    stats_.cached -= size;
    return data;
  }
  // The blocks that other streams are done with, as far as the pool's stream knows; or all of them,
  // for the driver, which waits for the device.
  void free_held(int pool, bool all) {
    const auto it = held_.find(pool);
    if (it == held_.end()) return;
    Held& held = it->second;
    const uint64_t version = cuda::stream_order_version();
    if (!all && held.looked_at == version) return;
    held.looked_at = version;
    held.blocks.remove_if([&](const HeldBlock& h) {
      if (!all && Source::in_use(pool, &h.uses)) return false;
      free_[pool][h.size].push_back(h.data);
      return true;
    });
    if (held.blocks.empty()) held_.erase(it);
  }
  // Not the pools of captured steps: what is free there is written by their replays.
  void release() {
    std::vector<int> pools;
    for (const auto& [pool, held] : held_)
      if (pool < kFirstOwnPool) pools.push_back(pool);
    for (const int pool : pools) free_held(pool, true);
    for (auto it = free_.begin(); it != free_.end();) {
      if (it->first >= kFirstOwnPool) {
        ++it;
        continue;
      }
      release_sizes(it->second);
      it = free_.erase(it);
    }
    arena_.trim();
  }
  void release_sizes(const std::unordered_map<size_t, std::vector<void*>>& sizes) {
    for (auto& [size, blocks] : sizes) {
      for (void* data : blocks) {
        pool_of_.erase(data);
        Source::put(data);
      }
      stats_.cached -= size * blocks.size();
    }
  }
  [[noreturn]] void fail(size_t bytes, const char* who) {
    const std::string where = context_path();
    throw OutOfMemoryError(str("out of memory: ", who, " refused ", human_bytes(bytes), "; in use ",
                               human_bytes(stats_.in_use), ", peak ", human_bytes(stats_.peak),
                               ", cached ", human_bytes(stats_.cached + arena_.free_bytes()),
                               limit_ ? ", limit " + human_bytes(limit_) : std::string(),
                               Source::capacity(), where.empty() ? "" : " (in " + where + ")",
                               ". A smaller batch_size needs proportionally less."));
  }

  struct HeldBlock {
    size_t size;
    void* data;
    cuda::StreamUses uses;
  };
  struct Held {
    std::list<HeldBlock> blocks;
    uint64_t looked_at = 0;  // stream_order_version()
  };

  std::mutex mutex_;
  HostArena arena_;
  std::unordered_map<int, std::unordered_map<size_t, std::vector<void*>>> free_;  // by pool, size
  std::unordered_map<void*, int> pool_of_;  // blocks of other pools than 0
  std::unordered_map<int, Held> held_;      // free, but another stream may be using them
  std::unordered_map<void*, std::string> owner_;
  std::map<std::string, size_t> tags_, tags_at_peak_;
  MemoryStats stats_;
  size_t limit_ = 0;
  bool tagging_ = false;
};

// Never destroyed: tensors with static lifetime may be freed after it otherwise.
Cache<HostSource>& host() {
  static auto* cache = new Cache<HostSource>;
  return *cache;
}
Cache<DeviceSource>& device_cache() {
  static auto* cache = new Cache<DeviceSource>;
  return *cache;
}

thread_local int current_pool = -1;  // -1: that of the stream
std::atomic<int> next_pool{kFirstOwnPool};

}  // namespace

int device_pool() { return std::max(current_pool, 0) + cuda::stream_index(); }
int new_device_pool() { return next_pool.fetch_add(kStreamsOfPool); }
DevicePoolScope::DevicePoolScope(int pool) : before_(current_pool) { current_pool = pool; }
DevicePoolScope::~DevicePoolScope() { current_pool = before_; }
void release_device_pool(int pool) {
  for (int i = 0; i < kStreamsOfPool; ++i) device_cache().end_pool(pool + i);
}

void* keep_device_memory(size_t bytes, const char* what) {
  cuda::forbid_while_capturing(what);
  void* data = cuda::malloc_device(bytes);
  if (!data) {
    release_cached_memory(Device::cuda(cuda::current_device()));
    data = cuda::malloc_device(bytes);
  }
  if (!data) throw OutOfMemoryError(str("out of memory: no ", human_bytes(bytes), " for ", what));
  return data;
}

void* allocate(size_t bytes, Device device) {
  if (device.is_cpu()) return bytes ? host().get(bytes) : nullptr;
  cuda::use_device(device.index);
  return bytes ? device_cache().get(bytes) : nullptr;
}

void deallocate(void* data, size_t bytes, Device device, const cuda::StreamUses* uses) noexcept {
  if (!data) return;
  device.is_cpu() ? host().put(data, bytes) : device_cache().put(data, bytes, uses);
}

MemoryStats memory_stats(Device device) {
  return device.is_cpu() ? host().stats() : device_cache().stats();
}
void reset_peak_memory(Device device) {
  device.is_cpu() ? host().reset_peak() : device_cache().reset_peak();
}
void release_cached_memory(Device device) {
  device.is_cpu() ? host().release_all() : device_cache().release_all();
}
void set_memory_limit(size_t bytes, Device device) {
  device.is_cpu() ? host().limit(bytes) : device_cache().limit(bytes);
}
size_t memory_limit(Device device) {
  return device.is_cpu() ? host().limit() : device_cache().limit();
}
void enable_memory_tags(bool on) {
  host().tagging(on);
  device_cache().tagging(on);
}
std::vector<std::pair<std::string, size_t>> peak_by_tag(Device device) {
  return device.is_cpu() ? host().peak_by_tag() : device_cache().peak_by_tag();
}

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

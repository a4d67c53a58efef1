#include "tensor/cuda/runtime.h"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/context.h"
#include "tensor/cuda/stream_order.h"
#include "tensor/error.h"
#include "tests/emulated/device/device.h"
#include "tests/emulated/device/queues.h"

namespace mtcki::cuda {

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kProtect = false;
#else
constexpr bool kProtect = true;
#endif
constexpr size_t kArena = size_t{12} << 30, kPage = 4096, kHugePage = size_t{2} << 20;

// Device memory: pages of one reserved range, handed out first fit by size.
class Memory {
 public:
  void* get(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!kProtect) {
      void* data = std::malloc(bytes);
      if (data) std::memset(data, 0xFF, bytes);  // NaN, so that a read of what nobody wrote shows
      return data;
    }
    const size_t size = (bytes + kPage - 1) / kPage * kPage;
    if (!base_) {
      void* p = mmap(nullptr, kArena + kHugePage, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) return nullptr;
      // Protecting a huge page is one entry to change where 512 pages are 512, twice per kernel.
      base_ = static_cast<char*>(p) + (kHugePage - reinterpret_cast<uintptr_t>(p) % kHugePage);
      madvise(base_, kArena, MADV_HUGEPAGE);
    }
    char* data = nullptr;
    const auto it = free_.find(size);
    if (it != free_.end() && !it->second.empty()) {
      data = it->second.back();
      it->second.pop_back();
    } else if (used_ + size <= kArena) {
      data = base_ + used_;
      used_ += size;
    } else {
      return nullptr;
    }
    size_of_[data] = size;
    in_use_ += size;
    protect(PROT_READ | PROT_WRITE);
    std::memset(data, 0xFF, size);
    if (depth_ == 0) protect(PROT_NONE);
    return data;
  }
  void put(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!kProtect) return std::free(data);
    const auto it = size_of_.find(static_cast<char*>(data));
    in_use_ -= it->second;
    free_[it->second].push_back(it->first);
    size_of_.erase(it);
  }
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (depth_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--depth_ == 0) protect(PROT_NONE);
  }
  Capacity capacity() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {kArena - in_use_, kArena};
  }

 private:
  void protect(int mode) {
    if (kProtect && used_) mprotect(base_, (used_ + kHugePage - 1) / kHugePage * kHugePage, mode);
  }
  std::mutex mutex_;
  char* base_ = nullptr;
  size_t used_ = 0, in_use_ = 0;
  int depth_ = 0;
  std::map<size_t, std::vector<char*>> free_;
  std::map<char*, size_t> size_of_;
};

Memory& memory() {
  static auto* m = new Memory;  // never destroyed: tensors may outlive it otherwise
  return *m;
}

thread_local Queues queues;
thread_local std::unique_ptr<Recording> recording;
std::atomic<uint64_t> epoch{0};

std::atomic<StreamTimes>& stream_times() {
  static std::atomic<StreamTimes> times = [] {
    const char* text = std::getenv("MTCKI_EMULATE_STREAMS");
    const std::string name = text ? text : "late";
    return name == "early"            ? StreamTimes::early
           : name == "early_reversed" ? StreamTimes::early_reversed
                                      : StreamTimes::late;
  }();
  return times;
}

void finish(int stream) { queues.finish(stream, queues.given(stream), stream_times()); }
void finish_all() { queues.finish_all(stream_times()); }
// Stream 0 works at once where others are late.
void run_stream_zero() {
  if (!recording && stream_times() == StreamTimes::late) finish(0);
}

}  // namespace

DeviceAccess::DeviceAccess() { memory().open(); }
DeviceAccess::~DeviceAccess() { memory().close(); }

void issue(std::function<void()> work, const char* name, bool copy) {
  const int stream = stream_index();
  if (name) work = with_record(std::move(work), name, copy);
  auto shared = std::make_shared<const std::function<void()>>(std::move(work));
  if (recording) return recording->add(stream, std::move(shared));
  queues.add(stream, {std::move(shared), 0, 0});
  if (stream == 0) run_stream_zero();
}

void set_stream_times(StreamTimes times) {
  finish_all();
  stream_times() = times;
}

const Availability& availability() {
  static const Availability a = [] {
    const char* on = std::getenv("MTCKI_EMULATE_CUDA");
    if (on && *on && *on != '0') return Availability{true, "", 1};
    return Availability{false, "this build has no CUDA kernels", 0};
  }();
  return a;
}
bool is_emulated() { return true; }

// Kernels are chosen and cut by the size of the device.
DeviceInfo device_info(int) {
  struct Size {
    int sm, multiprocessors, l2_mib, shared_kib;
  };
  // The first, or what MTCKI_EMULATE_SM asks for: H200, A100, RTX 4060.
  static const Size sizes[] = {{90, 132, 50, 227}, {80, 108, 40, 163}, {89, 24, 24, 99}};
  static const Size chosen = [] {
    const char* sm = std::getenv("MTCKI_EMULATE_SM");
    for (const Size& s : sizes)
      if (sm && std::atoi(sm) == s.sm) return s;
    return sizes[0];
  }();
  DeviceInfo d;
  d.name = "emulated (CUDA kernels on the CPU)";
  d.major = chosen.sm / 10;
  d.minor = chosen.sm % 10;
  d.multiprocessors = chosen.multiprocessors;
  d.memory = kArena;
  d.l2 = static_cast<size_t>(chosen.l2_mib) << 20;
  d.shared = static_cast<size_t>(chosen.shared_kib) << 10;
  return d;
}
std::string library_versions() { return "none"; }

void use_device(int index) {
  if (!availability().usable) throw DeviceError(availability().why);
  if (index != 0) throw DeviceError("there is one emulated device, cuda:0");
}
int current_device() { return 0; }

void* malloc_device(size_t bytes) noexcept { return memory().get(bytes); }
void free_device(void* data) noexcept {
  if (!recording) finish_all();  // the driver waits for the device, too
  if (data) memory().put(data);
}
Capacity capacity() { return memory().capacity(); }
void* malloc_pinned(size_t bytes) {
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!data)
    throw OutOfMemoryError(str("out of memory: no ", bytes, " bytes of pinned host memory"));
  return data;
}
void free_pinned(void* data) noexcept { std::free(data); }

void copy_to_device(void* dst, const void* src, size_t bytes) {
  forbid_while_capturing("a copy from unpinned host memory");
  finish(stream_index());
  const DeviceAccess access;
  std::memcpy(dst, src, bytes);
}
void copy_from_pinned(void* dst, const void* pinned, size_t bytes) {
  issue(
      [=] {
        const DeviceAccess access;
        std::memcpy(dst, pinned, bytes);
      },
      "copy to the device", true);
}
void copy_to_host(void* dst, const void* src, size_t bytes) {
  forbid_while_capturing("a copy to the host");
  finish(stream_index());
  const DeviceAccess access;
  std::memcpy(dst, src, bytes);
}
void copy_on_device(void* dst, const void* src, size_t bytes) {
  issue(
      [=] {
        const DeviceAccess access;
        std::memmove(dst, src, bytes);
      },
      "copy on the device", true);
}
void set_bytes(void* dst, int value, size_t bytes) {
  issue(
      [=] {
        const DeviceAccess access;
        std::memset(dst, value, bytes);
      },
      "fill");
}
void synchronize() {
  forbid_while_capturing("synchronize()");
  finish_all();
}

StreamHandle stream() { return nullptr; }
void make_stream_wait(int stream, int other) {
  if (recording) return recording->wait(stream, other);
  queues.add(stream, {nullptr, other, queues.given(other)});
  if (stream == 0) run_stream_zero();
}

struct Event::Impl {
  std::shared_ptr<std::chrono::steady_clock::time_point> at =
      std::make_shared<std::chrono::steady_clock::time_point>();
  int stream = 0;
  size_t position = 0;
};
Event::Event() : impl_(new Impl) {}
Event::~Event() = default;
Event::Event(Event&&) noexcept = default;
Event& Event::operator=(Event&&) noexcept = default;
void Event::record() {
  const auto reach = [at = impl_->at] { *at = std::chrono::steady_clock::now(); };
  if (recording) return reach();  // what a graph contains is counted
  issue(reach, nullptr);
  impl_->stream = stream_index();
  impl_->position = queues.given(impl_->stream);
}
void Event::wait() const {
  forbid_while_capturing("waiting for an event");
  queues.finish(impl_->stream, impl_->position, stream_times());
}
double Event::microseconds_since(const Event& start) const {
  return std::chrono::duration<double, std::micro>(*impl_->at - *start.impl_->at).count();
}

struct Graph::Impl {
  std::shared_ptr<const Recording> recorded;
};
Graph::Graph() : impl_(new Impl) {}
Graph::~Graph() = default;
void Graph::begin() {
  forbid_while_capturing("a second capture");
  impl_->recorded.reset();
  finish_all();
  recording = std::make_unique<Recording>(stream_index());
  ++epoch;
}
void Graph::end() {
  ++epoch;
  const std::shared_ptr<const Recording> made = std::move(recording);
  made->check_joined();
  impl_->recorded = made;
}
void Graph::abandon() noexcept {
  ++epoch;
  recording.reset();
  impl_->recorded.reset();
}
void Graph::launch() const {
  ++epoch;
  issue(with_record_of_launch([recorded = impl_->recorded] { recorded->replay(stream_times()); }),
        nullptr);
}
size_t Graph::nodes() const { return impl_->recorded ? impl_->recorded->works() : 0; }

bool capturing() { return recording != nullptr; }
uint64_t graph_epoch() { return epoch; }

}  // namespace mtcki::cuda

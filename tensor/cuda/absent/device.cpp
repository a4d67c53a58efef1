// The GPU of a build without CUDA: there is never one. Questions are answered so; what only tensors
// on a GPU need throws.
#include "tensor/cuda/activity.h"
#include "tensor/cuda/blas.h"
#include "tensor/cuda/clocks.h"
#include "tensor/cuda/collectives.h"
#include "tensor/cuda/conv.h"
#include "tensor/cuda/ranges.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki::cuda {

namespace {
[[noreturn]] void absent() { throw DeviceError(availability().why); }
}  // namespace

const Availability& availability() {
  static const Availability none{false, "this build has no CUDA kernels", 0};
  return none;
}
bool is_emulated() { return false; }
DeviceInfo device_info(int) { absent(); }
std::string library_versions() { return "none"; }
void use_device(int) { absent(); }
int current_device() { return -1; }

void* malloc_device(size_t) noexcept { return nullptr; }
void free_device(void*) noexcept {}
Capacity capacity() { return {}; }
void* malloc_pinned(size_t) { absent(); }
void free_pinned(void*) noexcept {}
void copy_to_device(void*, const void*, size_t) { absent(); }
void copy_from_pinned(void*, const void*, size_t) { absent(); }
void copy_to_host(void*, const void*, size_t) { absent(); }
void copy_on_device(void*, const void*, size_t) { absent(); }
void set_bytes(void*, int, size_t) { absent(); }
void synchronize() {}

StreamHandle stream() { return nullptr; }
void make_stream_wait(int, int) { absent(); }

struct Event::Impl {};
Event::Event() = default;
Event::~Event() = default;
Event::Event(Event&&) noexcept = default;
Event& Event::operator=(Event&&) noexcept = default;
void Event::record() { absent(); }
void Event::wait() const { absent(); }
double Event::microseconds_since(const Event&) const { absent(); }

struct Graph::Impl {};
Graph::Graph() = default;
Graph::~Graph() = default;
void Graph::begin() { absent(); }
void Graph::end() { absent(); }
void Graph::abandon() noexcept {}
void Graph::launch() const { absent(); }
size_t Graph::nodes() const { return 0; }
bool capturing() { return false; }
uint64_t graph_epoch() { return 0; }

std::string start_activity() { return "kernel records need a build with CUDA and an NVIDIA GPU"; }
std::vector<Activity> stop_activity() { return {}; }
void clear_activity() {}
double activity_now_us() { return 0; }
void push_activity_id(int64_t) {}
void pop_activity_id() {}

bool ranges_wanted() { return false; }
void push_range(const char*) {}
void pop_range() {}

bool gemm(const Gemm&, const void*, const void*, void*, const void*) { absent(); }
bool convolve(const Convolution&, bool, void*, void*, void*, std::string*) { absent(); }
Clocks read_clocks(int) { return {}; }
std::string nccl_version() { return ""; }
std::unique_ptr<Collectives> make_collectives(int, int, const std::function<void(void*, size_t)>&) {
  return nullptr;
}

}  // namespace mtcki::cuda

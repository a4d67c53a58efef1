// The GPU of a build without CUDA: it says that it is not there, and whatever would need it throws.
#include "tensor/cuda/runtime.h"

#include "tensor/cuda/blas.h"
#include "tensor/cuda/collectives.h"
#include "tensor/cuda/stream_order.h"
#include "tensor/error.h"

namespace mtcki::cuda {

const Availability& availability() {
  static const Availability none{false, "this build has no CUDA kernels", 0};
  return none;
}

namespace {
[[noreturn]] void absent() { throw DeviceError(availability().why); }
}  // namespace

bool is_emulated() { return false; }
std::string library_versions() { return "none"; }
std::string nccl_version() { return ""; }
int current_device() { return -1; }
bool capturing() { return false; }
uint64_t graph_epoch() { return 0; }
Capacity capacity() { return {}; }
void* malloc_device(size_t) noexcept { return nullptr; }
void free_device(void*) noexcept {}
void free_pinned(void*) noexcept {}
std::unique_ptr<Collectives> make_collectives(int, int, const std::function<void(void*, size_t)>&) {
  return nullptr;
}

DeviceInfo device_info(int) { absent(); }
void use_device(int) { absent(); }
void* malloc_pinned(size_t) { absent(); }
void copy_to_device(void*, const void*, size_t) { absent(); }
void copy_from_pinned(void*, const void*, size_t) { absent(); }
void copy_to_host(void*, const void*, size_t) { absent(); }
void copy_on_device(void*, const void*, size_t) { absent(); }
void set_bytes(void*, int, size_t) { absent(); }
void synchronize() { absent(); }
StreamHandle stream() { absent(); }
void make_stream_wait(int, int) { absent(); }
bool gemm(const Gemm&, const void*, const void*, void*, const void*) { absent(); }

struct Event::Impl {};
Event::Event() { absent(); }
Event::~Event() = default;
Event::Event(Event&&) noexcept = default;
Event& Event::operator=(Event&&) noexcept = default;
void Event::record() { absent(); }
void Event::wait() const { absent(); }
double Event::microseconds_since(const Event&) const { absent(); }

struct Graph::Impl {};
Graph::Graph() { absent(); }
Graph::~Graph() = default;
void Graph::begin() { absent(); }
void Graph::end() { absent(); }
void Graph::abandon() noexcept {}
void Graph::launch() const { absent(); }
size_t Graph::nodes() const { return 0; }

}  // namespace mtcki::cuda

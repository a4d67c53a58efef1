#include "tensor/cuda/runtime.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn_graph.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "tensor/context.h"
#include "tensor/cuda/native/check.h"
#include "tensor/cuda/stream_order.h"
#include "tensor/error.h"

namespace mtcki::cuda {

const void* any_kernel();  // launch.cuh

namespace {

std::string version_text(int v) { return str(v / 1000, ".", v % 1000 / 10); }

std::string cudnn_text(size_t v) { return str(v / 10000, ".", v % 10000 / 100, ".", v % 100); }
constexpr size_t kOldestCudnn = 90800;  // the device as a descriptor (conv_engine.cpp)

std::atomic<int> chosen{-1};

void need_device() {
  const int device = chosen.load(std::memory_order_relaxed);
  if (device < 0) return use_device(0);
  static thread_local bool current = false;  // CUDA has a current device for each thread, first 0
  if (current) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  current = true;
}

// Streams of the process, made on first use. Index 0 computes.
class Streams {
 public:
  cudaStream_t at(int index) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return made(index);
  }
  void after(int waiting, int waited_for) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const cudaStream_t first = made(waited_for), second = made(waiting);
    const cudaEvent_t e = events_[static_cast<size_t>(waited_for)];
    check(cudaEventRecord(e, first), "cudaEventRecord");
    check(cudaStreamWaitEvent(second, e, 0), "cudaStreamWaitEvent");
  }

 private:
  cudaStream_t made(int index) {
    while (static_cast<int>(streams_.size()) <= index) {
      // What stream 0 holds goes first: side streams have what nobody waits for yet.
      int least = 0, greatest = 0;
      check(cudaDeviceGetStreamPriorityRange(&least, &greatest),
            "cudaDeviceGetStreamPriorityRange");
      cudaStream_t s = nullptr;
      check(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking,
                                         streams_.empty() ? greatest : least),
            "cudaStreamCreate");
      cudaEvent_t e = nullptr;
      check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreate");
      streams_.push_back(s);
      events_.push_back(e);
    }
    return streams_[static_cast<size_t>(index)];
  }
  std::mutex mutex_;
  std::vector<cudaStream_t> streams_;
  std::vector<cudaEvent_t> events_;
};
Streams& streams() {
  static auto* s = new Streams;
  return *s;
}
thread_local bool is_capturing = false;
std::atomic<uint64_t> epoch{0};

cudaStream_t now() {
  need_device();
  return streams().at(stream_index());
}

Availability ask() {
  Availability a;
  int driver = 0, runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    a.why = "no NVIDIA driver on this machine";
    return a;
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    a.why = error == cudaErrorInsufficientDriver
                ? str("the NVIDIA driver supports CUDA ", version_text(driver),
                      ", this build needs ", version_text(runtime), "; install a newer driver")
            : error == cudaErrorNoDevice || error == cudaSuccess
                ? std::string("the NVIDIA driver finds no GPU")
                : str("the NVIDIA driver answers: ", cudaGetErrorString(error));
    return a;
  }
  if (const size_t found = cudnnGetVersion();
      found / 10000 != CUDNN_VERSION / 10000 || found < kOldestCudnn) {
    a.why = str("cuDNN ", cudnn_text(found), " was found, this build needs ", CUDNN_MAJOR,
                ".x from ", cudnn_text(kOldestCudnn),
                " on; another installation may come first on LD_LIBRARY_PATH");
    return a;
  }
  a.devices = count;
  a.usable = true;
  return a;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it unless it is sticky
  const std::string where = context_path();
  const std::string text = str(what, ": ", cudaGetErrorName(error), " (", cudaGetErrorString(error),
                               ")", where.empty() ? "" : " (in " + where + ")");
  if (error == cudaErrorMemoryAllocation) throw OutOfMemoryError(text);
  throw Error(text);
}

void check_launch(const void* kernel) {
  static const bool wait = [] {
    const char* on = std::getenv("MTCKI_SYNC");
    return on && *on && *on != '0';
  }();
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess && wait && !is_capturing) error = cudaStreamSynchronize(now());
  if (error == cudaSuccess) return;
  const char* name = nullptr;
#if CUDART_VERSION >= 12040  // of which cudaFuncGetName is
  if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = nullptr;
#else
  static_cast<void>(kernel);
#endif
  check(error, name ? name : "kernel");
}

void allow_shared(const void* kernel, size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "shared memory of a kernel");
}

bool can_overlap_launches() {
  // Not the device's version: the driver compiles PTX of an older one for it, in which
  // wait_for_previous() is nothing. All kernels are compiled for the same versions.
  static const bool can = [] {
    // MTCKI_EARLY=0: kernels one after the other, for the clean time of each.
    if (const char* on = std::getenv("MTCKI_EARLY"); on && std::strcmp(on, "0") == 0) return false;
    cudaFuncAttributes kernel{};
    check(cudaFuncGetAttributes(&kernel, any_kernel()), "cudaFuncGetAttributes");
    return kernel.ptxVersion >= 90;
  }();
  return can;
}

const Availability& availability() {
  static const Availability a = ask();
  return a;
}
bool is_emulated() { return false; }

DeviceInfo device_info(int index) {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, index), "cudaGetDeviceProperties");
  DeviceInfo d;
  d.name = p.name;
  d.major = p.major;
  d.minor = p.minor;
  d.multiprocessors = p.multiProcessorCount;
  d.memory = p.totalGlobalMem;
  d.l2 = static_cast<size_t>(p.l2CacheSize);
  d.shared = p.sharedMemPerBlockOptin;
  cudaDriverGetVersion(&d.driver_version);
  cudaRuntimeGetVersion(&d.runtime_version);
  return d;
}

std::string library_versions() {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  const size_t dnn = cudnnGetVersion(), blas = cublasLtGetVersion();
  return str("CUDA ", version_text(runtime), ", cuBLAS ", blas / 10000, ".", blas % 10000 / 100,
             ".", blas % 100, ", cuDNN ", cudnn_text(dnn));
}

void use_device(int index) {
  const Availability& a = availability();
  if (!a.usable) throw DeviceError(a.why);
  if (index < 0 || index >= a.devices)
    throw DeviceError(str("there is no GPU cuda:", index, ", only ", a.devices, " (cuda:0",
                          a.devices > 1 ? str(" to cuda:", a.devices - 1) : "", ")"));
  int none = -1;
  const bool first = chosen.compare_exchange_strong(none, index);
  if (!first && none != index)
    throw DeviceError(str("one process uses one GPU: cuda:", none, " is in use, cuda:", index,
                          " was asked for; start a process for each"));
  const auto refuse = [&](const std::string& why) {
    cudaGetLastError();
    if (first) chosen = -1;
    throw DeviceError(str("cuda:", index, " ", why));
  };
  const cudaError_t error = cudaSetDevice(index);  // of each thread, hence every time
  if (first && error != cudaSuccess) refuse(str("cannot be used: ", cudaGetErrorString(error)));
  check(error, "cudaSetDevice");
  cudaFuncAttributes kernel{};
  const cudaError_t code = first ? cudaFuncGetAttributes(&kernel, any_kernel()) : cudaSuccess;
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction) {
    const DeviceInfo d = device_info(index);
    refuse(str("(", d.name, ") has compute capability ", d.major, ".", d.minor,
               ", for which this build has no code (CMAKE_CUDA_ARCHITECTURES)"));
  }
  if (code != cudaSuccess) refuse(str("cannot be used: ", cudaGetErrorString(code)));
}
int current_device() { return chosen.load(std::memory_order_relaxed); }

void* malloc_device(size_t bytes) noexcept {
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return data;
}
void free_device(void* data) noexcept { cudaFree(data); }
Capacity capacity() {
  need_device();
  Capacity c;
  check(cudaMemGetInfo(&c.free, &c.total), "cudaMemGetInfo");
  return c;
}
void* malloc_pinned(size_t bytes) {
  need_device();
  void* data = nullptr;
  check(cudaMallocHost(&data, bytes), "cudaMallocHost");
  return data;
}
void free_pinned(void* data) noexcept { cudaFreeHost(data); }

void copy_to_device(void* dst, const void* src, size_t bytes) {
  forbid_while_capturing("a copy from unpinned host memory");
  check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, now()), "copy to the device");
  // The source may be a temporary. The driver may stage pageable memory before it returns, but need
  // not (where the GPU reads the host's pages itself it does not). Inputs of steps are pinned.
  check(cudaStreamSynchronize(now()), "copy to the device");
}
void copy_from_pinned(void* dst, const void* pinned, size_t bytes) {
  check(cudaMemcpyAsync(dst, pinned, bytes, cudaMemcpyHostToDevice, now()), "copy to the device");
}
void copy_to_host(void* dst, const void* src, size_t bytes) {
  forbid_while_capturing("a copy to the host");
  check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, now()), "copy to the host");
  check(cudaStreamSynchronize(now()), "copy to the host");
}
void copy_on_device(void* dst, const void* src, size_t bytes) {
  check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, now()), "copy on the device");
}
void set_bytes(void* dst, int value, size_t bytes) {
  check(cudaMemsetAsync(dst, value, bytes, now()), "fill");
}
void synchronize() {
  forbid_while_capturing("synchronize()");
  check(cudaDeviceSynchronize(), "synchronize");
}

StreamHandle stream() { return now(); }
void make_stream_wait(int stream, int other) {
  need_device();
  streams().after(stream, other);
}

struct Event::Impl {
  cudaEvent_t event = nullptr;
};
Event::Event() : impl_(new Impl) { check(cudaEventCreate(&impl_->event), "cudaEventCreate"); }
Event::~Event() {
  if (impl_ && impl_->event) cudaEventDestroy(impl_->event);
}
Event::Event(Event&&) noexcept = default;
Event& Event::operator=(Event&&) noexcept = default;
void Event::record() { check(cudaEventRecord(impl_->event, now()), "cudaEventRecord"); }
void Event::wait() const {
  forbid_while_capturing("waiting for an event");
  check(cudaEventSynchronize(impl_->event), "cudaEventSynchronize");
}
double Event::microseconds_since(const Event& start) const {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, start.impl_->event, impl_->event), "cudaEventElapsedTime");
  return 1000.0 * static_cast<double>(ms);
}

struct Graph::Impl {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ~Impl() { reset(); }
  void reset() {
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    exec = nullptr;
    graph = nullptr;
  }
};
Graph::Graph() : impl_(new Impl) {}
Graph::~Graph() = default;
void Graph::begin() {
  forbid_while_capturing("a second capture");
  impl_->reset();
  // Thread-local: loader threads may go on copying meanwhile.
  check(cudaStreamBeginCapture(now(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  is_capturing = true;
  ++epoch;
}
void Graph::end() {
  is_capturing = false;
  ++epoch;
  check(cudaStreamEndCapture(now(), &impl_->graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&impl_->exec, impl_->graph, 0), "cudaGraphInstantiate");
}
void Graph::abandon() noexcept {
  if (is_capturing) {
    is_capturing = false;
    ++epoch;
    cudaGraph_t broken = nullptr;
    cudaStreamEndCapture(streams().at(stream_index()), &broken);
    if (broken) cudaGraphDestroy(broken);
    cudaGetLastError();
  }
  impl_->reset();
}
void Graph::launch() const {
  ++epoch;
  check(cudaGraphLaunch(impl_->exec, now()), "cudaGraphLaunch");
}
size_t Graph::nodes() const {
  size_t n = 0;
  if (impl_->graph) check(cudaGraphGetNodes(impl_->graph, nullptr, &n), "cudaGraphGetNodes");
  return n;
}
bool capturing() { return is_capturing; }
uint64_t graph_epoch() { return epoch; }

}  // namespace mtcki::cuda

// The CUDA runtime as the rest of the project sees it; no CUDA header is needed to include this.
// Three implementations, chosen when a program is linked (cmake/MtckiCuda.cmake):
//
//   native/                 cudart: a real GPU
//   absent/                 none, in a build without CUDA
//   tests/emulated/device/  device memory and kernels on the CPU, for tests without a GPU
//
// One process uses one GPU: the first that use_device() was called for. Work is ordered on one
// compute stream; StreamScope moves a part of it to a side stream, which wait_stream() orders with
// the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace mtcki::cuda {

// Whether this process can use a GPU, and if not, why: not built, no driver, no device, another
// cuDNN. Asked once.
struct Availability {
  bool usable = false;
  std::string why;  // empty when usable
  int devices = 0;
};
const Availability& availability();
bool is_emulated();

struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t memory = 0, l2 = 0;                    // bytes
  size_t shared = 0;                            // bytes that one block can have
  int driver_version = 0, runtime_version = 0;  // 13000 = 13.0; 0: none
};
DeviceInfo device_info(int index);
// What was compiled in and found: "CUDA 13.0, cuBLAS 13.1.0, cuDNN 9.19.0" or "none".
std::string library_versions();

// Makes this the process's GPU. DeviceError when there is no such device, it cannot be used (busy,
// or too old for the code of this build), or another one is in use already.
void use_device(int index);
int current_device();

// Memory from the driver; the caching allocator (tensor/allocator.h) is what tensors use.
void* malloc_device(size_t bytes) noexcept;  // null when there is none left
void free_device(void* data) noexcept;
struct Capacity {
  size_t free = 0, total = 0;
};
Capacity capacity();
void* malloc_pinned(size_t bytes);  // host memory that copies to the device without a detour
void free_pinned(void* data) noexcept;

// All of these are ordered on the current stream. copy_to_device returns when the source may be reused
// (sources in pinned memory: at once, it must stay as it is until the copy ran). copy_to_host waits.
void copy_to_device(void* dst, const void* src, size_t bytes);
void copy_from_pinned(void* dst, const void* pinned, size_t bytes);
void copy_to_host(void* dst, const void* src, size_t bytes);
void copy_on_device(void* dst, const void* src, size_t bytes);
void set_bytes(void* dst, int value, size_t bytes);
void synchronize();  // waits for everything issued so far, reports errors of kernels

// Streams. 0 is the compute stream, 1.. are side streams (created when first asked for).
using StreamHandle = void*;  // a cudaStream_t
StreamHandle stream();       // the current one of this thread
int stream_index();
class StreamScope {
 public:
  explicit StreamScope(int index);
  ~StreamScope();
  int before() const { return before_; }
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  int before_;
};
// `stream` waits for what `other` holds so far. A side stream begins with wait_stream(side, 0), and
// what it computed may be used after wait_stream(0, side).
void wait_stream(int stream, int other);

// A point in the current stream. Works inside captures only where graphs allow it (timing does not).
class Event {
 public:
  Event();
  ~Event();
  Event(Event&&) noexcept;
  Event& operator=(Event&&) noexcept;
  void record();
  void wait() const;                                    // the host waits until it was reached
  double microseconds_since(const Event& start) const;  // both reached

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What the current stream was given between begin() and end(), to be repeated by launch(). Nothing
// runs during the capture. Use StepGraph (step_graph.h), which also keeps the memory rules.
class Graph {
 public:
  Graph();
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void begin();
  void end();
  void abandon() noexcept;  // ends a capture that failed
  void launch() const;
  size_t nodes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
bool capturing();
// Moves at every begin, end, abandon and launch of a graph: whenever device memory may have changed
// or be read without the host's knowledge.
uint64_t graph_epoch();
// Throws CaptureError, which names the op and module path, when a graph is being captured: for host
// reads, synchronisation and memory from the driver. `what` as in "item()".
void forbid_while_capturing(const char* what);

}  // namespace mtcki::cuda

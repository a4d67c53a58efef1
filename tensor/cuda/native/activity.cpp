#include "tensor/cuda/activity.h"

#if __has_include(<cupti.h>)

#include <cuda_runtime.h>
#include <cupti.h>
#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "tensor/cuda/native/check.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

#ifndef MTCKI_CUPTI_LIBRARY  // where it was found when this was built
#define MTCKI_CUPTI_LIBRARY "libcupti.so"
#endif

namespace mtcki::cuda {

namespace {

#if CUPTI_API_VERSION >= 130000
using KernelRecord = CUpti_ActivityKernel10;
using CopyRecord = CUpti_ActivityMemcpy6;
#else
using KernelRecord = CUpti_ActivityKernel9;
using CopyRecord = CUpti_ActivityMemcpy5;
#endif

// The functions of libcupti that are used, found by name when the library is first opened.
struct Cupti {
  std::string why;  // empty when it can be used
#define MTCKI_CUPTI_FUNCTIONS(F)                                                        \
  F(cuptiActivityRegisterCallbacks)                                                     \
  F(cuptiActivityEnable)                                                                \
  F(cuptiActivityDisable)                                                               \
  F(cuptiActivityFlushAll)                                                              \
  F(cuptiActivityGetNextRecord) F(cuptiActivityPushExternalCorrelationId)               \
      F(cuptiActivityPopExternalCorrelationId) F(cuptiSubscribe) F(cuptiEnableCallback) \
          F(cuptiGetGraphNodeId) F(cuptiGetResultString) F(cuptiGetTimestamp)           \
              F(cuptiGetCallbackName)
#define F(name) decltype(&::name) name = nullptr;
  MTCKI_CUPTI_FUNCTIONS(F)
#undef F

  Cupti() {
    void* library = nullptr;
    // That of the build first: records have the form of its headers.
    const std::string built_with = str("libcupti.so.", CUDART_VERSION / 1000);
    for (const char* name : {built_with.c_str(), MTCKI_CUPTI_LIBRARY})
      if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      why = "libcupti was not found; put its folder on LD_LIBRARY_PATH";
      return;
    }
#define F(name)                                                      \
  name = reinterpret_cast<decltype(&::name)>(dlsym(library, #name)); \
  if (!name && why.empty()) why = "libcupti is too old: it has no " #name;
    MTCKI_CUPTI_FUNCTIONS(F)
#undef F
  }
  std::string text(CUptiResult r) const {
    const char* message = nullptr;
    cuptiGetResultString(r, &message);
    return message ? message : str("error ", static_cast<int>(r));
  }
};
const Cupti& cupti() {
  static const Cupti c;
  return c;
}

const CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                     CUPTI_ACTIVITY_KIND_MEMCPY,
                                     CUPTI_ACTIVITY_KIND_MEMSET,
                                     CUPTI_ACTIVITY_KIND_RUNTIME,
                                     CUPTI_ACTIVITY_KIND_DRIVER,
                                     CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION};
constexpr size_t kBufferBytes = size_t{4} << 20;

std::mutex mutex;  // of both
std::vector<Activity> collected;
std::unordered_map<uint64_t, int64_t> op_of_node;
thread_local std::vector<int64_t> ids;

double us(uint64_t ns) { return static_cast<double>(ns) * 1e-3; }

// Fields that all kernel, copy and fill records have under the same names.
template <class Record>
Activity work(Activity::Kind kind, const Record& r) {
  Activity a;
  a.kind = kind;
  a.start_us = us(r.start);
  a.end_us = us(r.end);
  a.stream = static_cast<int>(r.streamId);
  a.correlation = r.correlationId;
  a.graph_node = r.graphNodeId;
  return a;
}

void add(const CUpti_Activity* record) {
  Activity a;
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto& r = *reinterpret_cast<const KernelRecord*>(record);
      a = work(Activity::Kind::kernel, r);
      a.name = r.name ? r.name : "kernel";
      a.shape = str(r.gridX, "x", r.gridY, "x", r.gridZ, " of ", r.blockX * r.blockY * r.blockZ,
                    " threads, ", r.registersPerThread, " registers, ",
                    (r.staticSharedMemory + r.dynamicSharedMemory) / 1024, " KiB");
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto& r = *reinterpret_cast<const CopyRecord*>(record);
      a = work(Activity::Kind::copy, r);
      a.bytes = static_cast<double>(r.bytes);
      a.name = r.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? "copy to the device"
               : r.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "copy to the host"
                                                               : "copy on the device";
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto& r = *reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      a = work(Activity::Kind::fill, r);
      a.bytes = static_cast<double>(r.bytes);
      a.name = "fill";
      break;
    }
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
      const auto& r = *reinterpret_cast<const CUpti_ActivityExternalCorrelation*>(record);
      a.kind = Activity::Kind::correlation;
      a.correlation = r.correlationId;
      a.op = static_cast<int64_t>(r.externalId);
      break;
    }
    case CUPTI_ACTIVITY_KIND_RUNTIME:
    case CUPTI_ACTIVITY_KIND_DRIVER: {
      const auto& r = *reinterpret_cast<const CUpti_ActivityAPI*>(record);
      const char* name = nullptr;
      cupti().cuptiGetCallbackName(record->kind == CUPTI_ACTIVITY_KIND_RUNTIME
                                       ? CUPTI_CB_DOMAIN_RUNTIME_API
                                       : CUPTI_CB_DOMAIN_DRIVER_API,
                                   r.cbid, &name);
      a.kind = Activity::Kind::call;
      a.name = name ? name : "call";
      a.start_us = us(r.start);
      a.end_us = us(r.end);
      a.correlation = r.correlationId;
      break;
    }
    default:
      return;
  }
  const std::lock_guard<std::mutex> lock(mutex);
  collected.push_back(std::move(a));
}

void CUPTIAPI request_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = *buffer ? kBufferBytes : 0;
  *most_records = 0;
}
void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  CUpti_Activity* record = nullptr;
  while (valid > 0 && cupti().cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS)
    add(record);
  std::free(buffer);
}

// A node made during a capture belongs to the innermost op; instantiating a graph clones its nodes,
// and kernels report the clone.
void CUPTIAPI on_resource(void*, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                          const void* data) {
  if (domain != CUPTI_CB_DOMAIN_RESOURCE) return;
  const auto* resource = static_cast<const CUpti_ResourceData*>(data);
  const auto* graph = static_cast<const CUpti_GraphData*>(resource->resourceDescriptor);
  uint64_t node = 0;
  if (!graph || cupti().cuptiGetGraphNodeId(graph->node, &node) != CUPTI_SUCCESS) return;
  const std::lock_guard<std::mutex> lock(mutex);
  if (id == CUPTI_CBID_RESOURCE_GRAPHNODE_CREATED) {
    if (!ids.empty()) op_of_node[node] = ids.back();
  } else if (id == CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED) {
    uint64_t original = 0;
    if (cupti().cuptiGetGraphNodeId(graph->originalNode, &original) != CUPTI_SUCCESS) return;
    const auto it = op_of_node.find(original);
    if (it != op_of_node.end()) op_of_node[node] = it->second;
  }
}

bool recording = false;

}  // namespace

std::string start_activity() {
  if (!availability().usable) return availability().why;
  const Cupti& c = cupti();
  if (!c.why.empty()) return c.why;
  static bool prepared = false;
  if (!prepared) {
    CUpti_SubscriberHandle subscriber = nullptr;
    CUptiResult r = c.cuptiSubscribe(&subscriber, on_resource, nullptr);
    for (const CUpti_CallbackId id :
         {CUPTI_CBID_RESOURCE_GRAPHNODE_CREATED, CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED})
      if (r == CUPTI_SUCCESS)
        r = c.cuptiEnableCallback(1, subscriber, CUPTI_CB_DOMAIN_RESOURCE, id);
    if (r == CUPTI_SUCCESS) r = c.cuptiActivityRegisterCallbacks(request_buffer, take_buffer);
    if (r != CUPTI_SUCCESS) return "CUPTI answers: " + c.text(r);
    prepared = true;
  }
  for (const CUpti_ActivityKind kind : kKinds)
    if (const CUptiResult r = c.cuptiActivityEnable(kind); r != CUPTI_SUCCESS)
      return "CUPTI answers: " + c.text(r);
  recording = true;
  clear_activity();
  return "";
}

std::vector<Activity> stop_activity() {
  if (!recording) return {};
  synchronize();
  const Cupti& c = cupti();
  c.cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  for (const CUpti_ActivityKind kind : kKinds) c.cuptiActivityDisable(kind);
  recording = false;
  const std::lock_guard<std::mutex> lock(mutex);
  std::vector<Activity> out;
  out.swap(collected);
  for (const auto& [node, op] : op_of_node) {
    Activity a;
    a.kind = Activity::Kind::node;
    a.graph_node = node;
    a.op = op;
    out.push_back(std::move(a));
  }
  return out;
}

void clear_activity() {
  if (!recording) return;
  synchronize();
  cupti().cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard<std::mutex> lock(mutex);
  collected.clear();
}

double activity_now_us() {
  uint64_t ns = 0;
  if (recording) cupti().cuptiGetTimestamp(&ns);
  return us(ns);
}

void push_activity_id(int64_t id) {
  ids.push_back(id);
  if (recording)
    cupti().cuptiActivityPushExternalCorrelationId(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0,
                                                   static_cast<uint64_t>(id));
}
void pop_activity_id() {
  ids.pop_back();
  if (recording)
    cupti().cuptiActivityPopExternalCorrelationId(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, nullptr);
}

}  // namespace mtcki::cuda

#else  // no cupti.h

namespace mtcki::cuda {

std::string start_activity() { return "this build was made without CUPTI (cupti.h)"; }
std::vector<Activity> stop_activity() { return {}; }
void clear_activity() {}
double activity_now_us() { return 0; }
void push_activity_id(int64_t) {}
void pop_activity_id() {}

}  // namespace mtcki::cuda

#endif

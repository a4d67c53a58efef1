#include "tensor/profiler.h"

#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/cuda/activity.h"
#include "tensor/cuda/ranges.h"
#include "tensor/cuda/runtime.h"
#include "tensor/profiler_activity.h"
#include "tensor/tensor.h"

namespace mtcki {

namespace {

using Clock = std::chrono::steady_clock;

struct EventPair {
  cuda::Event start, stop;
};

// A scope that is open, or closed and recorded. timing: on a GPU, until events() reads it.
struct Scope {
  profiler::Event event;
  Device device;
  double child_host_us = 0;
  std::optional<EventPair> timing;
};

std::mutex mutex;  // of what follows
std::vector<Scope> recorded;
std::vector<EventPair> pool;
size_t pairs_made = 0;
std::optional<cuda::Event> device_origin;  // reached when the host clock read `origin`
Clock::time_point origin;

std::atomic<int> next_thread{0};
std::atomic<int64_t> next_id{0}, current_step{0};
thread_local std::vector<Scope> open_scopes;
thread_local int thread_id = -1;
thread_local int backward_depth = 0;

double now_us() { return std::chrono::duration<double, std::micro>(Clock::now() - origin).count(); }

EventPair take_pair() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (pool.empty()) {
    ++pairs_made;
    return {};
  }
  EventPair pair = std::move(pool.back());
  pool.pop_back();
  return pair;
}

bool uses_gpu() { return cuda::current_device() >= 0 && cuda::availability().usable; }

// Reads the times of what ran on the GPU and gives the events back to the pool.
void resolve() {
  for (Scope& s : recorded) {
    if (!s.timing) continue;
    s.timing->stop.wait();
    s.event.start_us = device_origin ? s.timing->start.microseconds_since(*device_origin) : 0;
    s.event.duration_us = s.timing->stop.microseconds_since(s.timing->start);
    pool.push_back(std::move(*s.timing));
    s.timing.reset();
  }
}

void set_self_times() {
  std::unordered_map<int64_t, size_t> index;
  for (size_t i = 0; i < recorded.size(); ++i) {
    index[recorded[i].event.id] = i;
    recorded[i].event.self_us = recorded[i].event.duration_us;
  }
  for (const Scope& s : recorded) {
    const auto parent = index.find(s.event.parent);
    if (parent == index.end()) continue;
    Scope& p = recorded[parent->second];
    if (p.device == s.device) p.event.self_us -= s.event.duration_us;
  }
}

const bool kRangesOn = [] {
  if (cuda::ranges_wanted()) profiler::listening.fetch_or(profiler::kRanges);
  return true;
}();

}  // namespace

namespace profiler {

void start() {
  const std::lock_guard<std::mutex> lock(mutex);
  resolve();
  recorded.clear();
  current_step = 0;
  if (uses_gpu()) {
    cuda::synchronize();
    if (!device_origin) device_origin.emplace();
    device_origin->record();
    device_origin->wait();
  }
  origin = Clock::now();
  listening.fetch_or(kRecord);
}

void stop() { listening.fetch_and(~kRecord); }

void set_step(int64_t step) { current_step = step; }

double host_now_us() { return now_us(); }

std::vector<Event> events() {
  const std::lock_guard<std::mutex> lock(mutex);
  resolve();
  set_self_times();
  std::vector<Event> out;
  out.reserve(recorded.size());
  for (const Scope& s : recorded) out.push_back(s.event);
  return out;
}

size_t device_events_made() {
  const std::lock_guard<std::mutex> lock(mutex);
  return 2 * pairs_made;
}

}  // namespace profiler

void ProfileScope::begin(const char* op, double flops, const Traffic& traffic) {
  if (listening_ & profiler::kRanges) cuda::push_range(op);
  if (!(listening_ & (profiler::kRecord | profiler::kActivity))) return;
  if (thread_id < 0) thread_id = next_thread++;
  Scope scope;
  profiler::Event& e = scope.event;
  e.id = next_id++;
  e.parent = open_scopes.empty() ? -1 : open_scopes.back().event.id;
  if (listening_ & profiler::kActivity) cuda::push_activity_id(e.id);
  if (active()) {
    e.op = op;
    e.module = context_module();
    e.stage = context_stage();
    e.backward = backward_depth > 0;
    e.flops = flops;
    e.bytes = traffic.bytes;
    e.thread = thread_id;
    e.step = current_step.load(std::memory_order_relaxed);
    if (const Tensor* x = traffic.operand; x && x->defined()) {
      scope.device = x->device();
      e.shape = x->shape().to_string();
      e.dtype = name_of(x->dtype());
      e.layout = name_of(x->layout());
      e.device = scope.device.to_string();
    }
    if (scope.device.is_cuda()) {
      e.stream = cuda::stream_index();
      e.captured = cuda::capturing();
      if (!e.captured) scope.timing = take_pair();
    }
    // Last, so that what was done above is in no one's time.
    e.start_us = e.host_start_us = now_us();
    if (scope.timing) scope.timing->start.record();
  }
  open_scopes.push_back(std::move(scope));
}

void ProfileScope::end() {
  if (listening_ & (profiler::kRecord | profiler::kActivity)) {
    Scope scope = std::move(open_scopes.back());
    open_scopes.pop_back();
    if (listening_ & profiler::kActivity) cuda::pop_activity_id();
    if (active()) {
      profiler::Event& e = scope.event;
      if (scope.timing) scope.timing->stop.record();
      const double host_us = now_us() - e.host_start_us;
      e.host_us = host_us - scope.child_host_us;
      if (scope.device.is_cpu()) e.duration_us = host_us;
      e.memory = memory_stats(scope.device).in_use;
      if (!open_scopes.empty()) open_scopes.back().child_host_us += host_us;
      const std::lock_guard<std::mutex> lock(mutex);
      recorded.push_back(std::move(scope));
    }
  }
  if (listening_ & profiler::kRanges) cuda::pop_range();
}

void ProfileScope::note(const std::string& text) {
  if (active()) open_scopes.back().event.note = text;
}

BackwardScope::BackwardScope() { ++backward_depth; }
BackwardScope::~BackwardScope() { --backward_depth; }

}  // namespace mtcki

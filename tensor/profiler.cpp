#include "tensor/profiler.h"

#include <chrono>
#include <mutex>

#include "tensor/context.h"

namespace mtcki {

namespace {

using Clock = std::chrono::steady_clock;

struct Open {
  profiler::Event event;
  double child_us = 0;
};

std::mutex mutex;
std::vector<profiler::Event> recorded;
Clock::time_point origin;
std::atomic<int> next_thread{0};
thread_local std::vector<Open> open_scopes;
thread_local int thread_id = -1;
thread_local int backward_depth = 0;

double now_us() { return std::chrono::duration<double, std::micro>(Clock::now() - origin).count(); }

}  // namespace

namespace profiler {

void start() {
  const std::lock_guard<std::mutex> lock(mutex);
  recorded.clear();
  origin = Clock::now();
  enabled.store(true);
}

void stop() { enabled.store(false); }

std::vector<Event> events() {
  const std::lock_guard<std::mutex> lock(mutex);
  return recorded;
}

}  // namespace profiler

void ProfileScope::begin(const char* op, double flops, double bytes) {
  if (thread_id < 0) thread_id = next_thread++;
  Open open;
  open.event.op = op;
  open.event.module = context_module();
  open.event.stage = context_stage();
  open.event.backward = backward_depth > 0;
  open.event.flops = flops;
  open.event.bytes = bytes;
  open.event.thread = thread_id;
  open.event.start_us = now_us();
  open_scopes.push_back(std::move(open));
}

void ProfileScope::end() {
  Open open = std::move(open_scopes.back());
  open_scopes.pop_back();
  open.event.duration_us = now_us() - open.event.start_us;
  open.event.self_us = open.event.duration_us - open.child_us;
  if (!open_scopes.empty()) open_scopes.back().child_us += open.event.duration_us;
  const std::lock_guard<std::mutex> lock(mutex);
  recorded.push_back(std::move(open.event));
}

void ProfileScope::note(const std::string& text) {
  if (active_) open_scopes.back().event.shape = text;
}

BackwardScope::BackwardScope() { ++backward_depth; }
BackwardScope::~BackwardScope() { --backward_depth; }

}  // namespace mtcki

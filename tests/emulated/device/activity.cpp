#include "tensor/cuda/activity.h"

#include <chrono>
#include <mutex>
#include <unordered_map>

#include "tensor/cuda/runtime.h"
#include "tests/emulated/device/device.h"

namespace mtcki::cuda {

namespace {

std::mutex mutex;  // of what follows
std::vector<Activity> collected;
std::unordered_map<uint64_t, int64_t> op_of_node;
uint32_t last_id = 0;

bool recording = false;
thread_local std::vector<int64_t> ids;
thread_local uint32_t launch_of_graph = 0;

void collect(Activity a) {
  const std::lock_guard<std::mutex> lock(mutex);
  collected.push_back(std::move(a));
}

}  // namespace

double activity_now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

std::string start_activity() {
  if (!availability().usable) return "kernel records need a build with CUDA and an NVIDIA GPU";
  recording = true;
  clear_activity();
  return "";
}

std::vector<Activity> stop_activity() {
  if (!recording) return {};
  synchronize();
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
  const std::lock_guard<std::mutex> lock(mutex);
  collected.clear();
}

void push_activity_id(int64_t id) { ids.push_back(id); }
void pop_activity_id() { ids.pop_back(); }

std::function<void()> with_record(std::function<void()> work, const char* name, bool copy) {
  if (!recording) return work;
  Activity a;
  a.kind = copy ? Activity::Kind::copy : Activity::Kind::kernel;
  a.name = name;
  a.stream = stream_index();
  const std::lock_guard<std::mutex> lock(mutex);
  const uint32_t id = ++last_id;
  if (capturing()) {
    a.graph_node = id;
    if (!ids.empty()) op_of_node[id] = ids.back();
  } else {
    a.correlation = id;
    if (!ids.empty()) {
      Activity call;
      call.kind = Activity::Kind::correlation;
      call.correlation = id;
      call.op = ids.back();
      collected.push_back(std::move(call));
    }
  }
  return [a, work = std::move(work)]() mutable {
    if (a.graph_node) a.correlation = launch_of_graph;
    a.start_us = activity_now_us();
    work();
    a.end_us = activity_now_us();
    collect(a);
  };
}

std::function<void()> with_record_of_launch(std::function<void()> replay) {
  if (!recording) return replay;
  Activity call;
  call.kind = Activity::Kind::call;
  call.name = "graph launch";
  {
    const std::lock_guard<std::mutex> lock(mutex);
    call.correlation = ++last_id;
  }
  call.start_us = call.end_us = activity_now_us();
  collect(call);
  return [id = call.correlation, replay = std::move(replay)] {
    launch_of_graph = id;
    replay();
  };
}

}  // namespace mtcki::cuda

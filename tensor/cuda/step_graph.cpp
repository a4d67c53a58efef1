#include "tensor/cuda/step_graph.h"

#include <algorithm>

#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace {
thread_local std::vector<std::function<void()>>* recorded = nullptr;
}

void host_work(std::function<void()> work) {
  if (recorded) {
    recorded->push_back(std::move(work));
  } else {
    work();
  }
}

bool records_host_work() { return recorded != nullptr; }

StepGraph::StepGraph(bool capture, size_t most)
    : capture_(capture), most_(std::max<size_t>(1, most)), pool_(new_device_pool()) {}

StepGraph::~StepGraph() {
  try {
    clear();
  } catch (const Error&) {
    // A device in error ends every call with it; the first one is under way and says it.
  }
}

void StepGraph::clear() {
  if (entries_.empty()) return;
  cuda::synchronize();  // a launched graph may still be running
  entries_.clear();
  release_device_pool(pool_);
  pool_ = new_device_pool();
}

StepGraph::Entry& StepGraph::entry(const std::string& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end() && entries_.size() >= most_) {
    cuda::synchronize();
    entries_.erase(std::min_element(
        entries_.begin(), entries_.end(),
        [](const auto& a, const auto& b) { return a.second.last < b.second.last; }));
  }
  Entry& e = entries_[key];
  e.last = ++now_;
  return e;
}

void StepGraph::run(const std::string& key, const std::function<void()>& step) {
  if (!capture_ || key.empty()) return step();
  Entry& e = entry(key);
  if (!e.graph) {
    if (e.runs++ == 0) {
      // What a step creates once and keeps, the state of an optimiser say, must not lie in memory
      // to which the graphs of other keys write.
      step();
      release_cached_memory(Device::cuda(cuda::current_device()));
      return;
    }
    const DevicePoolScope pool(pool_);
    if (e.runs <= kWarmup) return step();
    capture(e, step);
  } else {
    ++replayed_;
  }
  for (const auto& work : e.host) work();
  e.graph->launch();
}

void StepGraph::capture(Entry& e, const std::function<void()>& step) {
  auto graph = std::make_unique<cuda::Graph>();
  e.host.clear();
  recorded = &e.host;
  graph->begin();
  try {
    step();
    recorded = nullptr;
    graph->end();
  } catch (...) {
    recorded = nullptr;
    graph->abandon();
    throw;
  }
  e.graph = std::move(graph);
  ++captured_;
}

}  // namespace mtcki

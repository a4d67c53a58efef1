// StepGraph: a step that is issued from the host once and then repeated as a CUDA graph.
//
//   StepGraph graph(true);
//   graph.run(key, [&] { ... one step ... });
//
// The first three runs of a key are eager: the first builds plans and creates what later steps find
// there, the others fill the memory pool of the graphs, once with what a step leaves to the next.
// The fourth is captured and launched, all later ones are only launched. `key` names the structure:
// two steps with equal keys issue the same ops on the same shapes and addresses. An empty key
// always runs eagerly. Captured or not, a step computes the same bits.
//
// What a step may do (a violation throws CaptureError, which names the op and the module path):
//   - it reads its inputs from fixed device tensors (StepInputs) and its rates from Scalars,
//   - it never reads the device: no item(), no copy to the host, no synchronisation,
//   - what outlives it is written into tensors that exist before and stay where they are,
//   - what the host does in each step (counters, uploads) goes through host_work().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensor/cuda/runtime.h"

namespace mtcki {

class StepGraph {
 public:
  // capture: false runs every step eagerly. most: graphs kept; the one that was not used for the
  // longest time goes first. They share one pool, because they never run at the same time.
  explicit StepGraph(bool capture = false, size_t most = 8);
  ~StepGraph();
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;

  void run(const std::string& key, const std::function<void()>& step);
  // Forgets all graphs, e.g. because tensors they use were replaced.
  void clear();

  int64_t captured() const { return captured_; }  // so far
  int64_t replayed() const { return replayed_; }  // launches of earlier captures

  static constexpr int kWarmup = 3;

 private:
  struct Entry {
    int runs = 0;
    uint64_t last = 0;
    std::unique_ptr<cuda::Graph> graph;
    std::vector<std::function<void()>> host;
  };
  Entry& entry(const std::string& key);
  void capture(Entry& e, const std::function<void()>& step);

  bool capture_;
  size_t most_;
  int pool_;
  uint64_t now_ = 0;
  int64_t captured_ = 0, replayed_ = 0;
  std::map<std::string, Entry> entries_;
};

// Work of the host that belongs to every run of a step. Eager: done at once. In a captured step:
// done before the launch, and again before every later one. It must not issue anything that the
// step itself has to be ordered after.
void host_work(std::function<void()> work);
// Whether a step is being captured whose launches will do the host's work first.
bool records_host_work();

}  // namespace mtcki

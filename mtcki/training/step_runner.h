// StepRunner: the one way in which training, synthesis and distillation take a step. On the GPU a
// step is captured and repeated where it can be, and its values wait on the device to be read
// together; on the CPU they are there, and checked, before the step goes on. A step that runs out of
// memory says which key to lower.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "mtcki/training/compute.h"
#include "mtcki/training/metric_ring.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/cuda/step_inputs.h"
#include "tensor/error.h"

namespace mtcki {

class StepRunner {
 public:
  // batch_key: the configuration's name of the batch size, "train.batch_size".
  StepRunner(const Compute& compute, const std::string& batch_key, int64_t batch_size);

  // What the host hands to a step, and what a step reports.
  StepInputs& inputs() { return inputs_; }
  MetricRing& values() { return ring_; }
  const StepGraph& graph() const { return graph_; }
  Device device() const { return inputs_.device(); }
  bool is_deferred() const { return ring_.is_deferred(); }

  // Takes step number `step`. Steps of equal `variant` issue the same operations on the same memory;
  // an empty one is never repeated. Values at once, and NumericError before anything changes when
  // one is not finite; deferred, none but when as many wait as can.
  Values run(int64_t step, const std::string& variant, const std::function<void()>& issue);
  // Work that comes before a step and is never repeated with it; what it says of memory is the same.
  void before_step(const std::function<void()>& work);
  // The values of all steps since, checked; those of the last one.
  Values read() { return ring_.read(); }
  // Captured steps know memory or teachers that are no longer used.
  void forget_graphs() { graph_.clear(); }
  // After loading a state: also what was not read.
  void restart();

 private:
  [[noreturn]] void fail(const OutOfMemoryError& e);

  std::string batch_key_;
  int64_t batch_size_;
  StepInputs inputs_;
  MetricRing ring_;
  StepGraph graph_;
};

}  // namespace mtcki

#include "mtcki/training/step_runner.h"

namespace mtcki {

StepRunner::StepRunner(const Compute& compute, const std::string& batch_key, int64_t batch_size)
    : batch_key_(batch_key),
      batch_size_(batch_size),
      inputs_(compute.device),
      ring_(compute.device.is_cpu() ? MetricRing()
                                    : MetricRing::deferred(compute.device, compute.read_every)),
      graph_(compute.graph && ring_.is_deferred()) {}

Values StepRunner::run(int64_t step, const std::string& variant,
                       const std::function<void()>& issue) {
  try {
    graph_.run(variant, issue);
  } catch (const OutOfMemoryError& e) {
    fail(e);
  }
  ring_.commit(step);
  return is_deferred() && !ring_.full() ? Values() : ring_.read();
}

void StepRunner::before_step(const std::function<void()>& work) {
  try {
    work();
  } catch (const OutOfMemoryError& e) {
    fail(e);
  }
}

void StepRunner::fail(const OutOfMemoryError& e) {
  graph_.clear();
  throw OutOfMemoryError(str(e.what(), " Lower ", batch_key_, " (now ", batch_size_, ")."));
}

void StepRunner::restart() {
  ring_.drop();
  graph_.clear();
}

}  // namespace mtcki

// How fast the steps of a stage are, by the time inside them: tests, checkpoints and pictures
// between them do not count.
#pragma once

#include <chrono>
#include <cstdint>

#include "mtcki/host/progress.h"
#include "tensor/allocator.h"

namespace mtcki {

class StepClock {
 public:
  StepClock(int64_t images_per_step, Device device) : images_(images_per_step), device_(device) {}

  void begin() { begun_ = Clock::now(); }
  void end() {
    const double s = std::chrono::duration<double>(Clock::now() - begun_).count();
    recent_.add(1, s);
    seconds_ += s;
    ++steps_;
  }
  // Of about the last ten seconds.
  double images_per_second() const {
    const double s = recent_.seconds_per_unit();
    return s > 0 ? static_cast<double>(images_) / s : 0;
  }
  // For metrics.jsonl: the mean of the steps since the last call, and the most memory that tensors
  // have held.
  void report(Progress::Values* values) {
    if (steps_ == 0) return;
    values->emplace_back("ms_per_step", 1e3 * seconds_ / static_cast<double>(steps_));
    values->emplace_back("img_s", static_cast<double>(images_ * steps_) / seconds_);
    values->emplace_back("memory_bytes", static_cast<double>(memory_stats(device_).peak));
    seconds_ = 0;
    steps_ = 0;
  }

 private:
  using Clock = std::chrono::steady_clock;
  int64_t images_, steps_ = 0;
  Device device_;
  double seconds_ = 0;
  Pace recent_{10};
  Clock::time_point begun_;
};

}  // namespace mtcki

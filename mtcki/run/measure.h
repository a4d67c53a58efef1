// A step of workload.h measured: what `mtcki profile` shows.
#pragma once

#include <string>
#include <vector>

#include "mtcki/profile/profile.h"
#include "mtcki/profile/sweep.h"
#include "mtcki/run/workload.h"
#include "tensor/profiler_activity.h"

namespace mtcki {

struct MeasureOptions {
  WorkloadOptions workload;
  int64_t steps = 5;  // timed, once without and once with the profiler
  // "ops": a time for each op. "kernels": for each GPU kernel (CUPTI); DeviceError where that is not
  // possible. "auto": on a GPU kernels of the captured step where it is, else ops.
  std::string level = "auto";
  const Roof* roof = nullptr;
};

struct Measured {
  Profile profile;
  std::vector<profiler::Event> events;
  std::vector<profiler::Slice> kernels;  // level kernels
};
Measured measure(MeasureOptions options);

// One µs per step. On a GPU from where the step before ended there: what the host does meanwhile
// costs nothing while the GPU has work. clocks: may be null.
std::vector<double> step_times_us(const Workload& step, int64_t steps, Device device,
                                  ClockRange* clocks = nullptr);

// The profile at each value. What memory is too small for ends it, with the reason in that point.
// UsageError for a width that the network cannot have.
Sweep measure_sweep(const MeasureOptions& options, const SweepRange& range);

}  // namespace mtcki

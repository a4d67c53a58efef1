#include "mtcki/log/stage_profiles.h"

#include <algorithm>

#include "data/formats/atomic_file.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/profile/table.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace mtcki {

StageProfiles::StageProfiles(std::string folder, int64_t steps, Device device, std::string math)
    : folder_(std::move(folder)), steps_(steps), device_(device), math_(std::move(math)) {
  std::string why;
  roof_ = find_roof(device, "", &why);
  if (!roof_) console::info(why);
}

StageProfiles::~StageProfiles() { finish(); }

void StageProfiles::begin(const std::string& stage) {
  if (stage != stage_) {
    finish();
    stage_ = stage;
    seen_ = 0;
    plain_us_.clear();
    profiled_us_.clear();
  }
  if (seen_ == kWarmup) {
    profiler::start();
    recording_ = true;
  }
  if (recording_) profiler::set_step(seen_ - kWarmup);
  started_ = Clock::now();
}

void StageProfiles::end() noexcept {
  if (seen_ < kWarmup + steps_) {
    try {
      if (device_.is_cuda()) cuda::synchronize();
    } catch (const Error&) {
      // The step itself reports it.
    }
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - started_).count();
    (recording_ ? profiled_us_ : plain_us_).push_back(us);
    if (++seen_ == kWarmup + steps_) finish();
  }
}

void StageProfiles::finish() noexcept {
  if (!recording_) return;
  profiler::stop();
  recording_ = false;
  try {
    write();
  } catch (const std::exception& e) {
    console::warn(str("no profile of stage ", stage_, ": ", e.what()));
  }
}

void StageProfiles::write() {
  const std::vector<profiler::Event> events = profiler::events();
  Profile p{
      .step = "stage " + stage_,
      .model = stage_,
      .device = device_.to_string(),
      .machine = device_.is_cuda() ? cuda::device_info(device_.index).name : machine_info().cpu,
      .math = math_,
      .version = build_info().version + " " + build_info().git,
      .date = utc_now(),
      .steps = std::ssize(profiled_us_),
      .threads = num_threads()};
  // The last of the warm-up; the first makes plans.
  p.step_us = plain_us_.empty() ? 0 : plain_us_.back();
  p.profiled_us = median(profiled_us_);
  p.peak_memory = memory_stats(device_).peak;
  p.roof = roof_;
  if (roof_) p.roof_date = roof_->date;
  p.rows = op_costs(events, p.steps, roof_ ? &*roof_ : nullptr, num_threads(), p.math);
  std::string name = stage_;
  std::replace(name.begin(), name.end(), '/', '-');
  data::make_directories(folder_);
  data::write_file_atomic(folder_ + "/" + name + ".json", to_json(p).dump(1) + "\n");
  data::write_file_atomic(folder_ + "/" + name + ".trace.json", chrome_trace(events));
}

}  // namespace mtcki

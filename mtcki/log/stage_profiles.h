// The first steps of each stage of a run, profiled: FOLDER/STAGE.json (a profile that `mtcki
// profile diff` reads) and FOLDER/STAGE.trace.json, '/' of a stage as '-'. Two steps of warm-up go
// before.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mtcki/profile/profile.h"
#include "tensor/device.h"

namespace mtcki {

class StageProfiles {
 public:
  StageProfiles(std::string folder, int64_t steps, Device device, std::string math);
  ~StageProfiles();  // writes what a short stage gave
  StageProfiles(const StageProfiles&) = delete;
  StageProfiles& operator=(const StageProfiles&) = delete;

  // Around one step of a stage. `profiles` may be null.
  class Step {
   public:
    Step(StageProfiles* profiles, const std::string& stage) : profiles_(profiles) {
      if (profiles_) profiles_->begin(stage);
    }
    ~Step() {
      if (profiles_) profiles_->end();
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    StageProfiles* profiles_;
  };

  // Writes what the stage under way has, when it ends before its steps are complete.
  void finish() noexcept;

  static constexpr int64_t kWarmup = 2;

 private:
  using Clock = std::chrono::steady_clock;
  void begin(const std::string& stage);
  void end() noexcept;
  void write();

  std::string folder_;
  int64_t steps_;
  Device device_;
  std::string math_;
  std::optional<Roof> roof_;
  std::string stage_;  // under way or done
  int64_t seen_ = 0;   // of its steps
  bool recording_ = false;
  Clock::time_point started_;
  std::vector<double> plain_us_, profiled_us_;
};

}  // namespace mtcki

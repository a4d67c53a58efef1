// The progress line: a bar that is redrawn on a terminal, a plain line every few seconds elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mtcki {

std::string duration_text(double seconds);  // "7s", "3:07", "2:03:07", "3d 4h"

// How long a unit of work takes, by about the last `memory` seconds. A pause before a single unit,
// such as an evaluation, counts for its time and not as that unit's rate.
class Pace {
 public:
  explicit Pace(double memory = 60) : memory_(memory) {}
  void add(double units, double seconds);
  double seconds_per_unit() const { return units_ > 0 ? seconds_ / units_ : -1; }  // -1: unknown

 private:
  double memory_, units_ = 0, seconds_ = 0;  // the last two fade with time
};

class Progress {
 public:
  using Values = std::vector<std::pair<std::string, double>>;
  ~Progress() { end(); }
  void update(const std::string& stage, int64_t done, int64_t total, double images_per_second,
              const Values& values);
  void end();

  // The text itself; width 0: the plain form. A narrow terminal loses whole values from the right,
  // the bar of ten columns stays.
  static std::string text(const std::string& stage, int64_t done, int64_t total,
                          double images_per_second, double eta_seconds, const Values& values,
                          int width);

 private:
  using Clock = std::chrono::steady_clock;
  std::string stage_;
  int64_t last_done_ = 0;
  Pace pace_;
  Clock::time_point last_time_, last_shown_;
};

}  // namespace mtcki

// What a step and its ops cost against one size: batch, width of the network, threads.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/profile/profile.h"

namespace mtcki {

struct SweepRange {
  std::string what;  // "batch", "width" or "threads"
  std::vector<int64_t> values;
};
// "batch=8..1024": from the first to the last, doubled each time, and the last itself;
// "batch=8,24,100": these. UsageError for anything else.
SweepRange parse_sweep(const std::string& text);

struct SweepPoint {
  int64_t value = 0;
  Profile profile;     // without a timeline
  std::string failed;  // why there is none
};

// µs of an op at each point that was measured (NaN: the op did not run there), as fixed + slope *
// value, fitted by relative error with fixed >= 0. Of less than two points there is no fit.
struct OpCurve {
  std::string op, pass;
  std::vector<double> us;
  double fixed_us = 0, slope_us = 0;
};

struct Sweep {
  std::string what;
  std::vector<SweepPoint> points;

  std::vector<OpCurve> curves() const;  // most time at the last point first
  OpCurve step() const;                 // of the whole step, without the profiler
};

std::string sweep_text(const Sweep& sweep, int64_t most);  // most ops, 0: all
// Schema "mtcki-profile-sweep/1": the profile of each point, and the curves.
nlohmann::json to_json(const Sweep& sweep);

}  // namespace mtcki

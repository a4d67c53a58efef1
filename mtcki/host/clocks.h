// Clocks during a measurement, on the CPU and on a GPU.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tensor/cuda/clocks.h"
#include "tensor/device.h"

namespace mtcki {

// On the CPU the clock of this thread's core, measured by a chain of additions, of which each takes
// one cycle: 0.2 ms. On a GPU what its driver says.
cuda::Clocks read_clocks(Device device);

// Several readings: their mean, least and largest clock, the rest as in the last one.
struct ClockRange {
  double mhz = 0, low_mhz = 0, high_mhz = 0, memory_mhz = 0, watts = 0, celsius = 0;
  std::string limit;
  int64_t readings = 0;

  void add(const cuda::Clocks& c);
  // "3.42 GHz", "1.98 GHz (1.90 to 1.98), 612 W, 54 C, held down by power"; empty: not known.
  std::string text() const;
};
void to_json(nlohmann::json& j, const ClockRange& c);
void from_json(const nlohmann::json& j, ClockRange& c);

}  // namespace mtcki

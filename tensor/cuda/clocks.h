// The state of a processor while something is timed: two times are comparable when its clock was the
// same.
#pragma once

#include <string>

namespace mtcki::cuda {

struct Clocks {
  double mhz = 0, memory_mhz = 0, watts = 0, celsius = 0;  // 0: not known
  std::string limit;  // what holds the clock down, "power" or "heat"; empty: nothing
};
// Of a GPU, from NVML, which is loaded when it is first asked for. Without it nothing is known.
Clocks read_clocks(int device);

}  // namespace mtcki::cuda

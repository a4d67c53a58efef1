// The table of a ladder on a GPU.
#pragma once

#include <cstdio>
#include <vector>

#include "examples/ladder.h"
#include "mtcki/profile/roof.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/timing.h"

namespace ladder {

// What this GPU does at most, by a name of mtcki::Roof; 0 on an emulated one, which has no speed.
inline double roof_of(const char* name, int64_t gemm) {
  if (mtcki::cuda::is_emulated()) return 0;
  return mtcki::measure_roof({.device = mtcki::Device::cuda(0), .gemm = gemm}).values.at(name);
}

// Prints the table; `work` in 1e9 of `unit` per second. Returns whether all values are right.
inline bool climb(const std::vector<Rung>& rungs, double work, const char* unit,
                  const mtcki::Tensor& reference) {
  const bool timed = !mtcki::cuda::is_emulated();
  bool right = true;
  std::printf("%-36s %9s %9s %7s %11s\n", "", "us", unit, "% roof", "difference");
  for (const Rung& rung : rungs) {
    const double off = checked(rung, reference);
    right = right && off <= rung.tolerance;
    if (timed) {
      const double us = mtcki::cuda::microseconds_of([&] { rung.run(); });
      const double rate = work / us * 1e6;
      std::printf("%-36s %9.1f %9.0f %7.1f %11.1e\n", rung.name, us, rate, 100 * rate / rung.roof,
                  off);
    } else {
      std::printf("%-36s %9s %9s %7s %11.1e\n", rung.name, "-", "-", "-", off);
    }
  }
  if (!timed) std::printf("an emulated GPU: it checks values and says nothing of speed\n");
  return right;
}

}  // namespace ladder

// The table of a ladder on the CPU.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "examples/ladder.h"
#include "mtcki/profile/roof.h"
#include "tensor/parallel.h"

namespace ladder {

// The first argument of the program, else a few.
inline int rounds_of(int argc, char** argv) {
  return argc > 1 ? std::max(1, std::atoi(argv[1])) : 3;
}

inline double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
  return v[v.size() / 2];
}

template <class F>
double seconds_of(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Prints the table of a CPU ladder; `gflop` is what the definition takes, also where a rung takes
// less. Returns whether all values are right. The roof, multiply-adds in registers, takes turns with
// the rungs, so that what else runs on the machine meets all of them alike; medians of `rounds`.
inline bool climb(const std::vector<Rung>& rungs, double gflop, const mtcki::Tensor& reference,
                  int rounds) {
  std::map<int, std::vector<double>> roofs;
  std::vector<std::vector<double>> seconds(rungs.size());
  bool right = true;
  std::printf("%-36s %7s %9s %9s %7s %11s\n", "", "threads", "ms", "GFLOP/s", "% roof",
              "difference");
  for (int round = -1; round < rounds; ++round)  // the first fills caches and does not count
    for (size_t i = 0; i < rungs.size(); ++i) {
      mtcki::set_num_threads(rungs[i].threads);
      double flops = 0;
      const double roof = seconds_of([&] { flops = mtcki::fma_loop(rungs[i].threads, 500000); });
      const double own = seconds_of(rungs[i].run);
      if (round < 0) continue;
      roofs[rungs[i].threads].push_back(flops / roof * 1e-9);
      seconds[i].push_back(own);
    }
  for (size_t i = 0; i < rungs.size(); ++i) {
    const double s = median(seconds[i]), off = checked(rungs[i], reference);
    std::printf("%-36s %7d %9.2f %9.1f %7.1f %11.1e\n", rungs[i].name, rungs[i].threads, s * 1e3,
                gflop / s, 100 * gflop / s / median(roofs[rungs[i].threads]), off);
    right = right && off <= rungs[i].tolerance;
  }
  for (const auto& [threads, rates] : roofs)
    std::printf("%-36s %7d %9s %9.1f\n", "roof: multiply-adds in registers", threads, "",
                median(rates));
  return right;
}

}  // namespace ladder

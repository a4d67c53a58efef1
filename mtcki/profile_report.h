// What the profiler recorded, as tables, CSV and a Chrome trace.
#pragma once

#include <string>
#include <vector>

#include "tensor/profiler.h"

namespace mtcki {

struct CostRow {
  std::string key;
  int64_t calls = 0;
  double self_us = 0, flops = 0, bytes = 0;
  double gflops() const { return self_us > 0 ? flops / self_us * 1e-3 : 0; }
  double gbytes() const { return self_us > 0 ? bytes / self_us * 1e-3 : 0; }
};

enum class CostBy { op, module, stage };
// Sums of self time (nested scopes excluded), largest first. Ops of backward passes are rows of
// their own, "conv2d (backward)"; so are modules and stages without a name, "(none)".
std::vector<CostRow> cost_table(const std::vector<profiler::Event>& events, CostBy by);

// Columns: time, share of wall_us, calls, GFLOP/s, GB/s. Per step, when steps > 1. rows 0: all; the
// rest is summed into one line. The last lines: profiled total, wall time and what no op accounts
// for.
std::string cost_text(const std::vector<CostRow>& table, const std::string& title, double wall_us,
                      int64_t steps, int64_t rows);
std::string cost_csv(const std::vector<profiler::Event>& events, double wall_us, int64_t steps);
// For chrome://tracing and ui.perfetto.dev.
std::string chrome_trace(const std::vector<profiler::Event>& events);

}  // namespace mtcki

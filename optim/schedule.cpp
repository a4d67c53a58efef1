#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace mtcki::optim {

namespace {

constexpr double kPi = 3.14159265358979323846;

// From `start` at fraction 0 to `end` at fraction 1 along half a cosine.
double cosine_anneal(double start, double end, double fraction) {
  return end + (start - end) / 2.0 * (1.0 + std::cos(kPi * fraction));
}

double one_cycle(const Schedule& s, double step) {
  const double initial = s.base_lr / s.div_factor, last = initial / s.final_div_factor;
  const double total = static_cast<double>(s.total_steps);
  const double peak = s.pct_start * total - 1.0, end = total - 1.0;
  step = std::min(step, end);
  if (step <= peak || peak >= end)
    return peak > 0.0 ? cosine_anneal(initial, s.base_lr, std::min(1.0, step / peak)) : s.base_lr;
  return cosine_anneal(s.base_lr, last, (step - peak) / (end - peak));
}

}  // namespace

double Schedule::at(int64_t step) const {
  if (step < 0) throw UsageError(str("schedule: step ", step, " is negative"));
  if (kind == "onecycle") {
    if (warmup_steps > 0)
      throw UsageError("schedule onecycle: it has its own rise; set warmup_steps to 0");
    if (total_steps < 1) throw UsageError("schedule onecycle: total_steps must be at least 1");
    return one_cycle(*this, static_cast<double>(step));
  }
  if (step < warmup_steps) {
    const double share = static_cast<double>(step) / static_cast<double>(warmup_steps);
    return base_lr * (warmup_start + (1.0 - warmup_start) * share);
  }
  if (kind == "constant") return base_lr;
  if (kind == "cosine") {
    const int64_t span = total_steps - warmup_steps;
    if (span <= 0) return step >= total_steps ? min_lr : base_lr;
    const int64_t t = std::min(step - warmup_steps, span);
    return cosine_anneal(base_lr, min_lr, static_cast<double>(t) / static_cast<double>(span));
  }
  if (kind == "multistep") {
    const auto passed = std::ranges::count_if(milestones, [&](int64_t m) { return m <= step; });
    return base_lr * std::pow(gamma, static_cast<double>(passed));
  }
  throw UsageError(str("unknown schedule '", kind, "'; known: constant cosine multistep onecycle"));
}

}  // namespace mtcki::optim

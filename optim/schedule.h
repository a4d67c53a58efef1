// Learning-rate schedules as pure functions of the step: nothing to save, exact to resume.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mtcki::optim {

struct Schedule {
  std::string kind = "cosine";  // constant | cosine | multistep | onecycle
  double base_lr = 0.1, min_lr = 0.0;
  int64_t total_steps = 1;   // cosine, onecycle; the warm-up is part of it
  int64_t warmup_steps = 0;  // linear from warmup_start*base_lr, before the schedule
  double warmup_start = 0.0;
  std::vector<int64_t> milestones;  // multistep, in steps from the very start
  double gamma = 0.1;
  double pct_start = 0.3;  // onecycle: share of the rise; div factors as PyTorch
  double div_factor = 25.0, final_div_factor = 1e4;

  // Rate for 0-based step.
  //   warm-up    base*(warmup_start + (1-warmup_start) step/warmup_steps): LinearLR in SequentialLR
  //   cosine     min + (base-min)(1+cos(pi t/T))/2 with t = step - warmup_steps,
  //              T = total_steps - warmup_steps: CosineAnnealingLR(T); min from T on
  //   multistep  base*gamma^(number of milestones <= step): MultiStepLR
  //   onecycle   cosine anneal as OneCycleLR with base_lr as max_lr; its last value after the end
  // Throws UsageError on an unknown kind, a negative step, or onecycle with a warm-up.
  double at(int64_t step) const;
};

}  // namespace mtcki::optim

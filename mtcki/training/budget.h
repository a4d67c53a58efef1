// What a run has spent (docs/method.md): counters that survive a resume.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace mtcki {

struct Budget {
  int64_t images = 0;  // synthesised
  int64_t generator_steps = 0;
  int64_t kd_steps = 0;
  double forward_macs = 0;     // teachers and judging student, forward, in synthesis
  double kd_forward_macs = 0;  // teachers, forward, in distillation

  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Budget, images, generator_steps, kd_steps, forward_macs,
                                 kd_forward_macs)

  Budget& operator+=(const Budget& o) {
    images += o.images;
    generator_steps += o.generator_steps;
    kd_steps += o.kd_steps;
    forward_macs += o.forward_macs;
    kd_forward_macs += o.kd_forward_macs;
    return *this;
  }
};

}  // namespace mtcki

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

  nlohmann::json to_json() const {
    return {{"images", images},
            {"generator_steps", generator_steps},
            {"kd_steps", kd_steps},
            {"forward_macs", forward_macs},
            {"kd_forward_macs", kd_forward_macs}};
  }
  static Budget from_json(const nlohmann::json& j) {
    Budget b;
    b.images = j.value("images", int64_t{0});
    b.generator_steps = j.value("generator_steps", int64_t{0});
    b.kd_steps = j.value("kd_steps", int64_t{0});
    b.forward_macs = j.value("forward_macs", 0.0);
    b.kd_forward_macs = j.value("kd_forward_macs", 0.0);
    return b;
  }
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

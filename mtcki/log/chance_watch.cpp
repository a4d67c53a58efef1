#include "mtcki/log/chance_watch.h"

#include <fmt/format.h>

namespace mtcki {

std::vector<std::string> ChanceWatch::see(
    const std::string& stage, int64_t step,
    const std::vector<std::pair<std::string, double>>& values) {
  std::vector<std::string> warnings;
  for (const auto& [name, value] : values)
    for (const auto& [other, chance] : values) {
      if (other != name + kChanceSuffix) continue;
      Stretch& stretch = at_chance_[stage + "\n" + name];
      if (value < kShare * chance) {
        stretch.logged = 0;
        continue;
      }
      if (stretch.logged++ == 0) stretch.first = step;
      const int64_t steps = step - stretch.first;
      if (stretch.warned || stretch.logged < kLogged || steps < kSteps) continue;
      stretch.warned = true;
      warnings.push_back(
          fmt::format("{}: {} stays at chance ({:.4g} of {:.4g} for {} steps): its keys or queries "
                      "have collapsed and it teaches nothing; lower its learning rate, or set its "
                      "weight to 0",
                      stage, name, value, chance, steps));
    }
  return warnings;
}

}  // namespace mtcki

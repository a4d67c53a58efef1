#include "mtcki/log/chance_watch.h"

#include <fmt/format.h>

namespace mtcki {

std::vector<std::string> ChanceWatch::see(
    const std::string& stage, const std::vector<std::pair<std::string, double>>& values) {
  std::vector<std::string> warnings;
  for (const auto& [name, value] : values)
    for (const auto& [other, chance] : values) {
      if (other != name + kChanceSuffix) continue;
      int& steps = at_chance_[stage + "\n" + name];
      if (value < kShare * chance) {
        steps = 0;
      } else if (++steps == kSteps) {
        warnings.push_back(fmt::format(
            "{}: {} stays at chance ({:.4g} of {:.4g}, {} logged steps in a row): its keys or "
            "queries have collapsed and it teaches nothing; lower its learning rate, or set its "
            "weight to 0",
            stage, name, value, chance, kSteps));
      }
    }
  return warnings;
}

}  // namespace mtcki

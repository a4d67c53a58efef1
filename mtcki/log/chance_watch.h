// Contrasts that teach nothing. The InfoNCE loss of a head that gives every image the same vector is
// the logarithm of the number of keys: its chance. A step that logs a loss "X" beside "X.chance" is
// watched, and the run says so when the loss stays there.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mtcki {

inline constexpr char kChanceSuffix[] = ".chance";

class ChanceWatch {
 public:
  // Of one logged step. Warnings: one per stage and loss, when the loss was at kShare of chance or
  // above it on kSteps logged steps in a row.
  std::vector<std::string> see(const std::string& stage,
                               const std::vector<std::pair<std::string, double>>& values);

  static constexpr int kSteps = 12;
  static constexpr double kShare = 0.99;

 private:
  std::map<std::string, int> at_chance_;  // stage and loss -> logged steps in a row
};

}  // namespace mtcki

// Contrasts that teach nothing. The InfoNCE loss of a head that gives every image the same vector is
// the logarithm of the number of keys: its chance. A step that logs a loss "X" beside "X.chance" is
// watched, and the run says so when the loss stays there.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mtcki {

inline constexpr char kChanceSuffix[] = ".chance";

class ChanceWatch {
 public:
  // Of one logged step. Warnings: one per stage and loss, when the loss was at kShare of chance or
  // above it on kLogged logged steps in a row that span kSteps steps: every contrast begins at chance.
  std::vector<std::string> see(const std::string& stage, int64_t step,
                               const std::vector<std::pair<std::string, double>>& values);

  static constexpr int kLogged = 12, kSteps = 200;
  static constexpr double kShare = 0.99;

 private:
  struct Stretch {
    int logged = 0;
    int64_t first = 0;  // step
    bool warned = false;
  };
  std::map<std::string, Stretch> at_chance_;  // of a stage and loss
};

}  // namespace mtcki

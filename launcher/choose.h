// Which build of the program runs: the best instruction set that this CPU has and that was built.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace mtcki::launcher {

// Names of -march and of __builtin_cpu_supports, best first.
inline const std::vector<std::string> kLevels{"x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64"};

struct Choice {
  std::string level;
  std::string error;  // why there is none; then level is empty
};

inline bool has(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

inline std::string joined(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& name : list) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// built, supported: sublists of kLevels in its order. forced: of $MTCKI_CPU, empty: the best.
inline Choice choose(const std::vector<std::string>& built,
                     const std::vector<std::string>& supported, const std::string& forced) {
  const std::string there = "built are: " + joined(built);
  if (forced.empty()) {
    for (const std::string& level : built)
      if (has(supported, level)) return {level, ""};
    return {"", "no build of mtcki runs on this CPU, which is " + joined(supported) + "; " + there};
  }
  const std::string setting = "MTCKI_CPU=" + forced + ": ";
  if (!has(kLevels, forced)) return {"", setting + "no such instruction set; " + there};
  if (!has(built, forced)) return {"", setting + "was not built; " + there};
  if (!has(supported, forced))
    return {"", setting + "this CPU does not have it, only " + joined(supported)};
  return {forced, ""};
}

}  // namespace mtcki::launcher

#include "tensor/nearest_name.h"

#include <algorithm>

namespace mtcki {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates) {
  const auto found =
      std::ranges::min_element(candidates, [&](const std::string& a, const std::string& b) {
        return edit_distance(word, a) < edit_distance(word, b);
      });
  return found == candidates.end() ? "" : *found;
}

std::string likely_name(const std::string& word, const std::vector<std::string>& candidates) {
  if (word.empty()) return "";
  const int limit = std::max(2, static_cast<int>(word.size()) / 3);
  int best = limit + 1;
  std::string found;
  for (const std::string& c : candidates) {
    int d = edit_distance(word, c);
    // "synth" for "synthesis", "lr_g" for "synthesis.lr_g": an abbreviation, not a typo.
    if (word.size() >= 3 && c.size() > word.size() &&
        (c.compare(0, word.size(), word) == 0 ||
         c.compare(c.size() - word.size(), word.size(), word) == 0))
      d = std::min(d, limit);
    if (d < best && d < static_cast<int>(std::max(word.size(), c.size()))) {
      best = d;
      found = c;
    }
  }
  return found;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string found = likely_name(word, candidates);
  return found.empty() ? "" : "; did you mean \"" + found + "\"?";
}

}  // namespace mtcki

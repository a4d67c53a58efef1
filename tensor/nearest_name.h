// The candidate most like a name, for the texts of errors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mtcki {

// Insertions, deletions, substitutions and swaps of neighbours, each 1.
int edit_distance(std::string_view a, std::string_view b);
// The first candidate at the smallest distance; "" without candidates.
std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates);
// The nearest candidate, or "" when none is near enough to be a likely typo of `word` (distance
// more than a third of its length, at least 2). A candidate that `word` begins or ends also counts.
std::string likely_name(const std::string& word, const std::vector<std::string>& candidates);
// `; did you mean "x"?` or "".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace mtcki

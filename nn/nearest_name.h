// The candidate most like a name, for error texts ("unknown model 'resnet43'; nearest: resnet44").
#pragma once

#include <string>
#include <vector>

namespace mtcki::nn {

// Levenshtein distance.
int edit_distance(const std::string& a, const std::string& b);
// The first candidate at the smallest distance; empty without candidates.
std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace mtcki::nn

// What synthesis.source may be. The table stands beside the sources (synthesis/sources/sources.cpp),
// which use the configuration in turn.
#pragma once

#include <string>
#include <vector>

namespace mtcki {

std::vector<std::string> source_names();
// Nothing is optimised: the images are there already (synthesis/given_images.h).
bool is_given(const std::string& source);

}  // namespace mtcki

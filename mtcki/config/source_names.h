// What synthesis.source may be. The table stands beside the sources (synthesis/sources/sources.cpp),
// which use the configuration in turn.
#pragma once

#include <string>
#include <vector>

namespace mtcki {

std::vector<std::string> source_names();

}  // namespace mtcki

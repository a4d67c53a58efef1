// Paths in a configuration.
#pragma once

#include <string>

#include "mtcki/config/config.h"

namespace mtcki {

// data.dir, teachers.*.weights, name_map, metrics.classifier_weights and out: "~" at the beginning
// becomes $HOME. A relative path (not out) that is not there from the current folder, but beside
// the configuration file that names it, is taken from there. file: that configuration; "": none.
void resolve_paths(RunConfig* config, const std::string& file);

}  // namespace mtcki

// What synthesis.source and distill.replay may be. The tables stand beside the sources and the replays
// (synthesis/sources/sources.cpp, distillation/replay/replays.cpp), which use the configuration in turn.
#pragma once

#include <string>
#include <vector>

namespace mtcki {

std::vector<std::string> source_names();
// Nothing is optimised: the images are there already (synthesis/given_images.h).
bool is_given(const std::string& source);
// Whether images can be drawn from a source at any time, outside of a batch.
bool source_samples(const std::string& name);
// Whether the maps of its generator are kept with the images.
bool source_keeps_maps(const std::string& name);

std::vector<std::string> replay_names();
// Whether it keeps the images that a student's rounds make.
bool replay_keeps(const std::string& name);

}  // namespace mtcki

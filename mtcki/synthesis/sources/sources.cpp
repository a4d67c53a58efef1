#include <algorithm>

#include "mtcki/config/table_names.h"
#include "mtcki/synthesis/sources/source.h"

namespace mtcki {

namespace {

struct Row {
  const char* name;  // of synthesis.source
  std::unique_ptr<ImageSource> (*make)(const SynthesisConfig&, const SourceOptions&);
  bool samples = false;  // images can be drawn at any time
  bool maps = false;     // its maps are kept with the images
};

constexpr Row kSources[] = {{"generator", make_generator_source},
                            {"pixels", make_pixel_source},
                            {"meta_generator", make_meta_generator_source},
                            {"sampler", make_sampler_source, true},
                            {"maps", make_sampler_source, true, true},
                            {"noisy", make_noisy_source},
                            // null: given_images.h
                            {"real", nullptr},
                            {"noise", nullptr},
                            {"sets", nullptr}};

}  // namespace

std::vector<std::string> source_names() {
  std::vector<std::string> names;
  for (const Row& row : kSources) names.emplace_back(row.name);
  return names;
}

bool is_given(const std::string& source) {
  return std::ranges::any_of(kSources, [&](const Row& r) { return source == r.name && !r.make; });
}
bool source_samples(const std::string& name) {
  return std::ranges::any_of(kSources, [&](const Row& r) { return name == r.name && r.samples; });
}
bool source_keeps_maps(const std::string& name) {
  return std::ranges::any_of(kSources, [&](const Row& r) { return name == r.name && r.maps; });
}

std::unique_ptr<ImageSource> make_source(const SynthesisConfig& config,
                                         const SourceOptions& options) {
  for (const Row& row : kSources)
    if (config.source == row.name && row.make) return row.make(config, options);
  throw Error("no image source is called " + config.source);
}

}  // namespace mtcki

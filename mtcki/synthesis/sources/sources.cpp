#include "mtcki/config/source_names.h"
#include "mtcki/synthesis/sources/source.h"

namespace mtcki {

namespace {

struct Row {
  const char* name;  // of synthesis.source
  std::unique_ptr<ImageSource> (*make)(const SynthesisConfig&, const SourceOptions&);
};

// null: given_images.h
constexpr Row kSources[] = {{"generator", make_generator_source},
                            {"pixels", make_pixel_source},
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
  for (const Row& row : kSources)
    if (source == row.name) return !row.make;
  return false;
}

std::unique_ptr<ImageSource> make_source(const SynthesisConfig& config,
                                         const SourceOptions& options) {
  for (const Row& row : kSources)
    if (config.source == row.name && row.make) return row.make(config, options);
  throw Error("no image source is called " + config.source);
}

}  // namespace mtcki

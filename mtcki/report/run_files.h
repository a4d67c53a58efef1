// What the report reads of a run folder. Everything may be missing or damaged: then it is empty.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "mtcki/log/metrics_file.h"

namespace mtcki {

struct Sample {
  std::string file, stage;
  int64_t step = 0;
};

// "synthesis.g_steps", "24": the values of a resolved configuration as they are written there,
// tables of a list as "teachers.0.name".
using ConfigValues = std::vector<std::pair<std::string, std::string>>;
ConfigValues config_values(const std::string& toml);
std::string config_value(const ConfigValues& values, const std::string& key);  // "" for none

struct Run {
  std::string folder, name, config;
  ConfigValues values;
  // result: of result.json; of a run that has none yet, the networks and their last tests.
  nlohmann::json result, manifest, synth;
  std::vector<metrics_file::Line> lines;
  int64_t skipped = 0;          // damaged lines of metrics.jsonl
  std::vector<Sample> samples;  // by stage and step
  double seconds = 0;           // of all stages
  nlohmann::json last_attempt;

  int64_t classes() const;      // 0: not known
  double best_teacher() const;  // top-1; negative: none
};
Run read_run(const std::string& folder);  // UsageError when the folder is not a run's

// Empty, {} or "–" when there is no such thing.
std::string file_text(const std::string& path);
std::string text_of(const nlohmann::json& j, const char* key);
const nlohmann::json& child(const nlohmann::json& j, const char* key);    // object or array
const nlohmann::json& list_of(const nlohmann::json& j, const char* key);  // array
double number_of(const nlohmann::json& j, const char* key);               // NaN
std::string number_text(const nlohmann::json& j, const char* key, const char* format);

}  // namespace mtcki

// metrics.jsonl as a file: reading it back, repairing what a kill left, forgetting what is redone.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mtcki::metrics_file {

// A finite number, or "NaN", "Infinity", "-Infinity": JSON has none of these.
nlohmann::json number(double v);
double to_double(const nlohmann::json& j);  // the inverse; NaN for anything else

struct Line {
  double t = 0, epoch = 0;
  std::string stage, kind, text;
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;
};
// All complete lines; an incomplete last one is ignored, a damaged other one is skipped and
// counted.
std::vector<Line> read(const std::string& path, int64_t* skipped = nullptr);

// Cuts off a last line that has no newline. Nothing to do when the file is missing.
void repair(const std::string& path);
// Drops lines of `stage` with step > `step`, by a new file and rename.
void forget_after(const std::string& path, const std::string& stage, int64_t step);

}  // namespace mtcki::metrics_file

// report.html: one self-contained page of a run, or of several side by side. Inline style, SVG and
// PNG, no script, no external address; light and dark.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mtcki {

struct ReportOptions {
  int64_t refresh_seconds = 0;  // > 0: the page reloads itself
  // For the image grids of all runs, dropped evenly beyond it; confusion matrices and nearest real
  // images take at most a third of it more.
  size_t image_bytes = 3'000'000;
};

// Everything is read from the run folders: metrics.jsonl, result.json, manifest.json, config.toml,
// synth/manifest.json, samples/, metrics/neighbours.safetensors and the confusion.json of teachers
// and students. What is missing is left out. UsageError when a folder is not a run's.
std::string report_html(const std::vector<std::string>& folders, const ReportOptions& options = {});
// Written atomically.
void write_report(const std::vector<std::string>& folders, const std::string& path,
                  const ReportOptions& options = {});

}  // namespace mtcki

// report.html: one self-contained page of a run, or of several side by side (page.h). What its
// numbers mean: labels.h, docs/reading-the-report.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mtcki {

struct ReportOptions {
  int64_t refresh_seconds = 0;  // > 0: the page reloads itself
  // For the pictures of all runs: galleries and grids have half each, fewer beyond; confusion
  // matrices and nearest real images at most a third more.
  size_t image_bytes = 3'000'000;
};

// Everything is read from the run folders: metrics.jsonl, result.json, manifest.json, config.toml,
// synth/, samples/, profile/, metrics/neighbours.safetensors and the confusion.json of teachers and
// students. What is missing is left out. UsageError when a folder is not a run's.
std::string report_html(const std::vector<std::string>& folders, const ReportOptions& options = {});
// Written atomically.
void write_report(const std::vector<std::string>& folders, const std::string& path,
                  const ReportOptions& options = {});
// Whether the folder's last attempt says that it is under way; one that was killed says so, too.
bool is_running(const std::string& folder);

}  // namespace mtcki

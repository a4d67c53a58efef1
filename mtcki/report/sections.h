// The parts of a run's page. Each is HTML, and empty when there is nothing to show.
#pragma once

#include <string>
#include <vector>

#include "mtcki/report/run_files.h"

namespace mtcki {

// The result in one sentence, and the few numbers that one looks for first.
std::string headline_section(const Run& run);
// Networks, metrics and what they mean.
std::string result_section(const std::vector<Run>& runs);
// Chance, the same network trained on real images, the best teacher; class by class. Empty without
// accuracies on real images.
std::string baselines_section(const Run& run);
// Several runs: keys that differ; students' accuracy as mean ± deviation over the seeds of runs
// that differ in nothing else.
std::string compare_section(const std::vector<Run>& runs);
// A chart per stage and value: one line per run, network, and teacher that a step asked. What is
// not looked at first is folded away.
std::string curves_section(const std::vector<Run>& runs);
// Synthetic images by class, a batch from noise to image, and grids of batches; at most `bytes` of
// pictures each.
std::string images_section(const Run& run, size_t bytes);
// Where the time went; ops and roofline of each stage that was profiled.
std::string cost_section(const Run& run);

}  // namespace mtcki

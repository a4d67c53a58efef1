// The numbers of a finished run beside the accuracies: image quality and diversity, budget, memory.
#pragma once

#include "mtcki/log/run_log.h"
#include "mtcki/run/context.h"
#include "mtcki/run/result.h"
#include "mtcki/training/budget.h"

namespace mtcki {

// Appends to result.metrics (and result.seconds["metrics"]). The held-out classifier, if
// configured, is trained or imported into RUN/metrics/classifier; without one, teacher 0 describes
// the images for the diversity only (a teacher would flatter FID-C and IS-C).
// Its training takes result.seconds["classifier"].
void add_metrics(RunContext& run, PipelineResult& result, const Budget& budget, RunLog& log);
// Only that classifier, as a stage of its own.
void run_classifier(const RunConfig& config, const std::string& folder, RunLog& log);

}  // namespace mtcki

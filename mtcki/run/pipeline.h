// The main job: teachers -> synthetic set -> students (-> metrics), each stage a folder of the run.
//
// A stage writes RUN/<stage>/done.json (with config_sha256 of the sections it depends on) when it is
// complete; a stage whose marker matches is skipped, an interrupted one resumes from its checkpoint.
//   teachers/<name>/model.safetensors   synth/manifest.json + shards   students/<name>/model.safetensors
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/log/run_log.h"
#include "mtcki/run/result.h"

namespace mtcki {

// Each stage alone, on the folder of the run; earlier stages must be done (UsageError says which
// command does them). Throws Stopped after saving when a signal came.
std::vector<TeacherResult> run_teachers(const RunConfig& config, const std::string& folder,
                                        RunLog& log);
int64_t run_synthesis(const RunConfig& config, const std::string& folder, RunLog& log);  // images
std::vector<StudentResult> run_students(const RunConfig& config, const std::string& folder,
                                        RunLog& log);
// All of them, and the metrics. Does not write result.json: the caller does.
PipelineResult run_pipeline(const RunConfig& config, const std::string& folder, RunLog& log);

}  // namespace mtcki

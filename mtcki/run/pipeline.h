// The main job: teachers -> synthetic set -> students (-> metrics), each stage a folder of the run.
//
// A stage writes RUN/<stage>/done.json (with config_sha256 of the sections it depends on) when it is
// complete; a stage whose marker matches is skipped, an interrupted one resumes from its checkpoint.
//   teachers/<name>/model.safetensors   synth/manifest.json + shards   students/<name>/model.safetensors
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/log/run_log.h"

namespace mtcki {

// Percent everywhere; negative: not measured.
struct TeacherResult {
  std::string name, model;
  double top1 = -1, top5 = -1;
  int64_t parameters = 0;
  bool imported = false;  // from `weights`, not trained here
};

struct StudentResult {
  std::string name, model;
  double top1 = -1, top5 = -1;  // last epoch
  double top1_best = -1;
  double agreement = -1;  // test images on which student and fused teachers agree
  int64_t parameters = 0;
};

struct PipelineResult {
  std::vector<TeacherResult> teachers;
  std::vector<StudentResult> students;
  int64_t synthetic_images = -1;
  // "fid_c", "is_c", "diversity", "class_coverage", "generator_steps", "teacher_forward_macs",
  // "kd_steps", "peak_memory_bytes"...: whatever was measured, in the order of the table.
  std::vector<std::pair<std::string, double>> metrics;
  std::map<std::string, double> seconds;  // per stage; over all attempts of a resumed run
};

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

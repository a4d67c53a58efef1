// What a run measured.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mtcki {

// Percent everywhere; negative: not measured.
struct TeacherResult {
  std::string name, model;
  double top1 = -1, top5 = -1;
  int64_t parameters = 0;
  bool imported = false;  // from `weights`, not trained here
  double agreement = -1;  // with the fused teachers; without real images only
};

struct StudentResult {
  std::string name, model;
  double top1 = -1, top5 = -1;  // last epoch
  double top1_best = -1;
  double agreement = -1;  // measured images on which student and fused teachers agree
  int64_t parameters = 0;
  double agreement_best = -1;  // of the evaluations; without real images only
};

struct PipelineResult {
  std::vector<TeacherResult> teachers;
  std::vector<StudentResult> students;
  int64_t synthetic_images = -1;
  // "fid_c", "is_c", "diversity", "class_coverage", "generator_steps", "teacher_forward_macs",
  // "kd_steps", "peak_memory_bytes"...: whatever was measured, in the order of the table.
  std::vector<std::pair<std::string, double>> metrics;
  std::string note;                       // on what was measured where there are no real images
  std::map<std::string, double> seconds;  // per stage; over all attempts of a resumed run
};

}  // namespace mtcki

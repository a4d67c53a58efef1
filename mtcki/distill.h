// Distillation of a student from synthetic images (method.md 2.3, stage B):
//   L_S = L_KD + η L_ts,   η ramped linearly over the first ts_ramp of the steps; SGD
#pragma once

#include <memory>
#include <string>

#include "data/dataset.h"
#include "data/loader.h"
#include "mtcki/budget.h"
#include "mtcki/config.h"
#include "mtcki/fit.h"
#include "mtcki/losses/teacher_student_contrast.h"
#include "mtcki/sgd.h"
#include "mtcki/student.h"
#include "mtcki/teacher.h"

namespace mtcki {

// One student and what trains it; a step at a time.
class Distiller {
 public:
  Distiller(Teachers& teachers, Student& student, const DistillConfig& config, int64_t total_steps,
            uint64_t seed);

  // batch: images in [0,1], already augmented; labels are the intended classes. 0-based step.
  // NumericError, before anything changes, when a loss is not finite.
  Values step(const data::Batch& batch, int64_t step);

  SgdTrainer& trainer() { return trainer_; }
  const Budget& budget() const { return budget_; }
  void save(StageState& state) const;
  void load(const StageState& state);

 private:
  Teachers& teachers_;
  Student& student_;
  DistillConfig config_;
  int64_t total_steps_;
  std::unique_ptr<TeacherStudentContrast> contrast_;
  SgdTrainer trainer_;
  Budget budget_;
};

struct DistillJob {
  std::string stage;  // "student/wrn16_1"
  std::string dir;
  std::string config_sha256;
  DistillConfig config;
  uint64_t seed = 0;
  int64_t loader_threads = 1, keep_checkpoints = 2;
  std::string on_nan = "abort";
};
struct DistillResult {
  FitResult fit;
  Budget budget;
};

// Loader options of a pool of images: crop and flip, no normalisation (every network has its own).
data::LoaderOptions pool_loader(const DistillConfig& config, int64_t threads, uint64_t seed);
// The parts of a fit job that stages B and C share: test, weights, checkpoints.
FitJob student_fit_job(const DistillJob& job, Student& student, Distiller& distiller,
                       const data::ImageSet& test);

// Stage B: trains `student` (fresh, or continued from a checkpoint in job.dir) on the pool.
DistillResult distill(const DistillJob& job, Teachers& teachers, Student& student,
                      const data::ImageSet& pool, const data::ImageSet& test, RunLog& log);

}  // namespace mtcki

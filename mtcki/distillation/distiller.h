// Distillation of a student from synthetic images (docs/method.md, stage B):
//   L_S = L_KD + η L_ts,   η ramped linearly over the first ts_ramp of the steps; SGD
#pragma once

#include <memory>
#include <string>

#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/distillation/teacher_outputs.h"
#include "mtcki/losses/teacher_student_contrast.h"
#include "mtcki/networks/student.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/batch_source.h"
#include "mtcki/training/budget.h"
#include "mtcki/training/compute.h"
#include "mtcki/training/fit.h"
#include "mtcki/training/sgd_trainer.h"
#include "mtcki/training/step_runner.h"

namespace mtcki {

// One student and what trains it; a step at a time.
class Distiller {
 public:
  Distiller(Teachers& teachers, Student& student, const DistillConfig& config, int64_t total_steps,
            uint64_t seed, const Compute& compute = {});

  // From now on the teachers are asked once about each view of the pool's images. options: those of
  // the source that steps get, with views > 0.
  void keep_teacher_outputs(const data::ImageSet& pool, const data::LoaderOptions& options);

  // 0-based step of the schedule, on the batch of a step of the source: images in [0,1], augmented;
  // labels are the intended classes. Values at once, and NumericError before anything changes when
  // a loss is not finite; on the GPU values wait for read().
  Values step(BatchSource& source, int64_t source_step, int64_t step);
  Values read();
  bool is_deferred() const { return runner_.is_deferred(); }
  // Another source, or other teachers: captured steps know the old ones.
  void forget_graphs() { runner_.forget_graphs(); }

  SgdTrainer& trainer() { return trainer_; }
  const StepGraph& graph() const { return runner_.graph(); }
  const Budget& budget() const { return budget_; }
  void visit(State& state);

 private:
  void issue(const data::Batch& batch, double eta, const Tensor& eta_there);
  TeacherOutputs teacher_outputs(const data::Batch& batch, bool features);
  // Images about which an uninterrupted run asks the teachers at this step.
  int64_t images_asked(const BatchSource& source, int64_t source_step) const;

  Teachers& teachers_;
  Student& student_;
  DistillConfig config_;
  int64_t total_steps_;
  std::unique_ptr<TeacherStudentContrast> contrast_;
  std::unique_ptr<KeptTeacherOutputs> kept_;  // null: teachers are asked at every step
  int64_t kept_images_ = 0;                   // in one view
  SgdTrainer trainer_;
  Budget budget_;
  StepRunner runner_;
};

struct DistillJob {
  std::string stage;  // "student/wrn16_1"
  std::string dir;
  std::string config_sha256;
  DistillConfig config;
  uint64_t seed = 0;
  int64_t loader_threads = 1, keep_checkpoints = 2;
  Compute compute;
  std::string measure = "top1";  // FitJob::measure
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

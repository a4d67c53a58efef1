// Distillation of a student from synthetic images (docs/method.md): the weighted sum of the terms of
// the table in losses/student_terms.cpp,
//   L_S = L_KD + η L_ts,   a weight may rise linearly over the first steps; SGD
#pragma once

#include <memory>
#include <vector>

#include "mtcki/distillation/replay/replay.h"
#include "mtcki/distillation/teacher_outputs.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/networks/student.h"
#include "mtcki/training/budget.h"
#include "mtcki/training/sgd_trainer.h"
#include "mtcki/training/step_runner.h"

namespace mtcki {

// One student and what trains it; a step at a time.
class Distiller {
 public:
  Distiller(Teachers& teachers, Student& student, const DistillConfig& config, int64_t total_steps,
            uint64_t seed, const Compute& compute = {});

  // From now on the teachers are asked once about each view of the pool's images. options: those of
  // the replay that steps get, with views > 0.
  void keep_teacher_outputs(const data::ImageSet& pool, const data::LoaderOptions& options);

  // 0-based step of the schedule, on what the replay shows at it. Values at once, and NumericError
  // before anything changes when a loss is not finite; on the GPU values wait for read().
  Values step(Replay& replay, int64_t step);
  Values read();
  bool is_deferred() const { return runner_.is_deferred(); }
  // The replay shows other images, or the teachers changed: captured steps know the old ones.
  void forget_graphs() { runner_.forget_graphs(); }

  SgdTrainer& trainer() { return trainer_; }
  const StepGraph& graph() const { return runner_.graph(); }
  const Budget& budget() const { return budget_; }
  void visit(State& state);

 private:
  struct Weighted {
    const StudentTermRow* row;
    double weight;
    std::unique_ptr<StudentTerm> term;
  };
  // A term that counts in a step, and its weight then; there: the same on the device where it may
  // change from step to step and values wait.
  struct Active {
    const Weighted* of;
    double weight;
    Tensor there;
  };
  static std::vector<Weighted> make_terms(const StudentTermContext& context);
  std::vector<optim::ParameterGroup> parameters() const;
  std::vector<Active> active(int64_t step);
  void issue(Replay& replay, const std::vector<Active>& terms);
  TeacherQuestion question(bool features) const;
  std::vector<Teacher::View> teacher_views(const Tensor& images);
  TeacherOutputs teacher_outputs(const data::Batch& batch, bool features);
  // Images about which an uninterrupted run asks the teachers at this step.
  int64_t images_asked(Replay& replay, int64_t step) const;

  Teachers& teachers_;
  Student& student_;
  DistillConfig config_;
  int64_t total_steps_;
  std::vector<Weighted> terms_;
  std::unique_ptr<KeptTeacherOutputs> kept_;  // null: teachers are asked at every step
  int64_t kept_images_ = 0;                   // in one view
  SgdTrainer trainer_;
  Budget budget_;
  StepRunner runner_;
};

}  // namespace mtcki

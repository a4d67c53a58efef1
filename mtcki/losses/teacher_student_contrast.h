// (7) Multi-teacher/student contrast (docs/method.md): the student's embedding of an image should
// tell which of many images each teacher saw.
//
//   q_i^m = norm(W_m f_S(x_i)),  k_i^m = norm(f̃_m(x_i)),  f̃ = (f − mean)/std per channel over the batch
//   L_ts  = Σ_m w_m (1/B) Σ_i −log( exp(q_i^m·k_i^m/τ) / Z_i^m )
//   Z_i^m = Σ_{j≤B} exp(q_i^m·k_j^m/τ) + Σ_{n∈Q_m} exp(q_i^m·k_n/τ)
//
// Q_m: FIFO of past keys of teacher m. Nothing is trained on the teachers' side, so keys cannot
// collapse and old ones are as good as new ones (docs/decisions/student-teacher-contrast.md). W_m,
// one linear map without bias per teacher, trains with the student's optimiser and is discarded
// afterwards. Chance, the loss of queries that know nothing, is ln(B + |Q|).
#pragma once

#include <memory>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/losses/projection_head.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

class TeacherStudentContrast : public StudentTerm {
 public:
  // On the teachers' device.
  TeacherStudentContrast(const Teachers& teachers, int64_t student_dim, const DistillConfig& config,
                         uint64_t seed);

  // student_feature [B, d_S] with graph; teacher_features [B, d_m], constants: all that it needs of
  // the teachers.
  Variable loss(const Variable& student_feature, const std::vector<Tensor>& teacher_features);

  bool needs_features() const override { return true; }
  Rows rows() const override { return Rows::all; }
  double ramp() const override { return ramp_; }
  Variable loss(const StudentStep& step) override;
  std::optional<double> chance() const override { return chance_; }
  // The queues are full: until then what loss() is computed from changes its shape.
  bool settled() const override { return filled_ == size_; }
  nn::NamedList<Variable> parameters() override;  // W_m
  // The keys of the last loss() go into the queues.
  void finish_step() override;
  void visit(State& state) override;

 private:
  double tau_, ramp_, chance_ = 0;
  int64_t size_, filled_ = 0, position_ = 0;  // of every queue
  const Teachers& teachers_;
  std::vector<std::unique_ptr<nn::Linear>> maps_;
  std::vector<Tensor> queues_;     // f32 [size, d_m]: the first `filled` rows count
  std::vector<Tensor> last_keys_;  // of the last loss()
};

}  // namespace mtcki

// (7) Multi-teacher/student contrast (docs/method.md): the student's embedding of an image should be
// near every teacher's embedding of the same image, and far from those of others.
//
//   q_i = norm(g_S f_S(x_i)),  k_i^m = norm(g_m f_m(x_i))
//   L_ts = Σ_m w_m (1/B) Σ_i −log( exp(q_i·k_i^m/τ) / Z_i^m )
//   Z_i^m = Σ_{j≤B} exp(q_i·k_j^m/τ) + Σ_{n∈Q_m} exp(q_i·k_n/τ)
//
// Q_m: FIFO of past keys of teacher m. Options: sym averages with the term that has the teacher as
// anchor (in the batch); supcon takes all images of the same label as positives. The heads g train
// with the student's optimiser and are discarded afterwards.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/losses/projection_head.h"
#include "mtcki/networks/teacher.h"

namespace mtcki {

class TeacherStudentContrast {
 public:
  // On the teachers' device.
  TeacherStudentContrast(const Teachers& teachers, int64_t student_dim, const DistillConfig& config,
                         uint64_t seed);

  // student_feature [B, d_S] with graph; teacher_features [B, d_m], constants.
  Variable loss(const Variable& student_feature, const std::vector<Tensor>& teacher_features,
                const Tensor& labels);
  // After the optimiser's step: the keys of the last loss() go into the queues. Not part of a
  // captured step: the place moves.
  void enqueue();
  // Keys in the queues: what loss() is computed from changes its shape until they are full.
  int64_t past() const { return queues_.empty() ? 0 : queues_.front().filled; }
  bool settled() const { return past() == config_.ts_queue; }

  // Heads, for the optimiser.
  nn::NamedList<Variable> parameters();
  nn::StateDict state_dict() const;
  void load_state_dict(const nn::StateDict& state);

 private:
  struct Queue {
    Tensor keys, labels;  // f32 [size, D], i64 [size]: the first `filled` rows count
    int64_t filled = 0, position = 0;
    Tensor last_keys;
  };
  static void keep_keys(Queue& queue, const Tensor& keys);
  // Queue rows in use; undefined when there are none.
  static Tensor rows(const Tensor& all, int64_t filled) {
    return filled > 0 ? all.slice(0, filled) : Tensor();
  }

  DistillConfig config_;
  std::vector<double> weights_;
  std::unique_ptr<nn::Sequential> student_head_;
  std::vector<std::unique_ptr<nn::Sequential>> teacher_heads_;
  std::vector<Queue> queues_;
  Tensor last_labels_;
  DiagonalPositives diagonal_;
};

}  // namespace mtcki

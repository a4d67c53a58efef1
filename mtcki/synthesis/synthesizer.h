// Stage A (docs/method.md): images that the teachers recognise and that look like their training
// data to their batch norms. Per batch a generator and its latents are optimised together:
//
//   reset G; Z ~ N(0,I); y; Adam([G,Z]);  repeat g_steps: X = G(Z); L_G(X); step G, Z and head
//   keep the images of the lowest selection loss;  pool.add(uint8(X_best), y);  bank.add(φ_best)
//
// All draws are functions of (seed, batch, step), so any position resumes exactly. In a job of
// several ranks each makes the images of its rows; latents, generator and heads are the same on all
// of them, and so is what is saved.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/log/run_log.h"
#include "mtcki/networks/student.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/synthesis/inversion_loss.h"
#include "mtcki/training/budget.h"
#include "mtcki/training/checkpoint.h"
#include "mtcki/training/compute.h"
#include "optim/optimizer.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/cuda/step_inputs.h"

namespace mtcki {

class Synthesizer {
 public:
  struct Options {
    int64_t channels = 3, image_size = 32, num_classes = 10;
    int64_t most_batches = 0;  // of stages A and C together: bounds the bank
    uint64_t seed = 0;
    Compute compute;  // the device is the teachers'
  };
  Synthesizer(Teachers& teachers, const SynthesisConfig& config, const Options& options);

  // Weights β and γ from now on (stage C has its own).
  void set_weights(double cls, double adv) { cls_ = cls, adv_ = adv; }

  int64_t batch() const { return batch_; }  // finished ones
  int64_t step_in_batch() const { return step_; }
  bool batch_done() const { return step_ == config_.g_steps; }
  int64_t global_step() const { return batch_ * config_.g_steps + step_; }

  // One step of generator, latents and head; begins a batch when none is under way. On the GPU
  // values wait to be read: it returns none but every `read_every` steps and at the end of a batch.
  Values step(Student* student = nullptr);
  // The values of all steps since, checked; those of the last one. Before save().
  Values read();

  struct Batch {
    Tensor images;  // u8 [B,C,H,W], on the CPU
    Tensor labels;  // i64 [B], on the CPU
    double select = 0;
    std::vector<Tensor> phi_local, phi_global;  // per contrast head
  };
  // Ends a batch whose g_steps are done: quantises the best images, adds their features to the
  // bank.
  Batch finish();

  HistoryContrast* contrast() { return loss_.contrast(); }
  const Budget& budget() const { return budget_; }
  const SynthesisConfig& config() const { return config_; }
  const StepGraph& graph() const { return graph_; }

  // Everything but the bank's rows, also inside a batch.
  void save(StageState& state) const;
  void load(const StageState& state);

 private:
  void begin();
  Tensor draw_labels() const;
  std::vector<size_t> draw_subset(int64_t step_in_batch) const;
  Rng rng(const char* stream, int64_t step) const;
  ViewParameters views_at(int64_t step_in_batch) const;  // of this rank's rows
  RowRange rows() const;                                 // of this rank
  void make_optimizer();
  InversionLoss::Step prepare(Student* student);
  InversionLoss::Result forward(const InversionLoss::Step& s, Variable* images);
  void backward(const InversionLoss::Result& r);
  Values checked_step(const InversionLoss::Step& s);
  void deferred_step(const InversionLoss::Step& s);
  void keep_best(const InversionLoss::Result& r, const Tensor& images);
  std::set<size_t> asked_by(const InversionLoss::Step& s) const;  // teachers
  std::string structure(const InversionLoss::Step& s) const;
  [[noreturn]] void throw_numeric(const NumericError& e) const;
  void probe(InversionLoss::Step s, int64_t n);
  struct Best {
    int64_t step;
    double select;
    std::vector<Tensor> local, global;  // undefined for heads that this step did not ask
  };
  Best best() const;

  Teachers& teachers_;
  SynthesisConfig config_;
  Options options_;
  InversionLoss loss_;
  std::unique_ptr<nn::Generator> generator_;
  double cls_, adv_;
  int64_t batch_ = 0, step_ = 0;
  bool under_way_ = false;
  // This batch:
  std::set<size_t> asked_;  // teachers, so far
  Variable latents_;
  Tensor labels_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  // Best so far. Deferred: buffers that stay where they are, and the two numbers on the device too.
  Tensor best_images_;
  std::vector<Tensor> best_local_, best_global_;
  double best_select_ = 0;
  int64_t best_step_ = -1;
  Tensor device_select_, device_step_, step_number_;  // f32 []
  Budget budget_;
  Values values_;  // of the last step that was read
  StepInputs inputs_;
  MetricRing ring_;
  StepGraph graph_;
};

}  // namespace mtcki

// Synthesis (docs/method.md): images that the teachers recognise and that look like their training
// data to their batch norms. Per batch an image source (sources/) is optimised against the loss
// terms (losses/terms.cpp):
//
//   begin a batch; labels y;  repeat g_steps: X = source; L(X); step the source and the terms
//   keep the images of the lowest selection loss;  pool.add(uint8(X_best), y);  bank.add(φ(X_best))
//
// All draws are functions of (seed, batch, step), so any position resumes exactly. In a job of
// several ranks each makes the images of its rows; what is trained is the same on all of them, and
// so is what is saved.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/networks/student.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/synthesis/inversion_loss.h"
#include "mtcki/synthesis/sources/source.h"
#include "mtcki/training/budget.h"
#include "mtcki/training/step_runner.h"

namespace mtcki {

class Synthesizer {
 public:
  struct Options {
    int64_t channels = 3, image_size = 32, num_classes = 10;
    data::Normalization normalization;  // of the real set
    int64_t most_batches =
        0;  // of the shared set and of a student's rounds together: bounds the bank
    uint64_t seed = 0;
    Compute compute;  // the device is the teachers'
  };
  Synthesizer(Teachers& teachers, const SynthesisConfig& config, const Options& options);

  int64_t batch() const { return batch_; }  // finished ones
  int64_t step_in_batch() const { return step_; }
  bool batch_done() const { return step_ == config_.g_steps; }
  int64_t global_step() const { return batch_ * config_.g_steps + step_; }

  // One step of the source and of what the terms train; begins a batch when none is under way. On
  // the GPU values wait to be read: it returns none but every `read_every` steps and at the end of
  // a batch. student: for terms that need one.
  Values step(Student* student = nullptr);
  // The values of all steps since, checked; those of the last one. Before save().
  Values read();

  struct Batch {
    Tensor images;  // u8 [B,C,H,W], on the CPU
    Tensor labels;  // i64 [B], on the CPU
    double select = 0;
    std::vector<Tensor> maps = {};  // f32 [B,C,H,W] on the CPU, of a source that keeps them
  };
  // Ends a batch whose g_steps are done: quantises the best images, and lets the terms take from
  // them what they remember.
  Batch finish();

  ImageSource& source() { return *source_; }
  // The teachers' weights changed: captured steps know the old ones.
  void forget_graphs() { runner_.forget_graphs(); }
  // The best images so far of the batch under way, all ranks' as finish() gives them; undefined
  // before the first. Changes nothing.
  Tensor best_so_far() const;
  // Names of the teachers that the last step asked, joined by "+"; empty when it asked all.
  std::string asked() const;

  HistoryContrast* contrast() const { return loss_.contrast(); }
  const Budget& budget() const { return budget_; }
  const SynthesisConfig& config() const { return config_; }
  const StepGraph& graph() const { return runner_.graph(); }

  // Everything but the bank's rows, also inside a batch.
  void visit(State& state);

 private:
  void begin();
  Tensor draw_labels() const;
  std::vector<size_t> draw_subset(int64_t step_in_batch) const;
  Rng rng(const char* stream, int64_t step) const;
  ViewParameters views_at(int64_t step_in_batch) const;  // of this rank's rows
  RowRange rows() const;                                 // of this rank
  InversionLoss::Step prepare(Student* student);
  std::string variant(const InversionLoss::Step& s) const;
  void issue(const InversionLoss::Step& s);
  void keep_best(const InversionLoss::Result& r, const Tensor& images);
  std::vector<Tensor> best_maps() const;  // of all ranks
  void exchange(Batch* batch);
  void visit_best(State& state);

  Teachers& teachers_;
  SynthesisConfig config_;
  Options options_;
  InversionLoss loss_;
  std::unique_ptr<ImageSource> source_;
  StepRunner runner_;
  int64_t batch_ = 0, step_ = 0;
  bool under_way_ = false;
  Budget budget_;
  // Of this batch. The best so far: its images, its score and its step, f32 [], where captured steps
  // find them.
  Tensor labels_;
  Tensor best_images_, best_score_, best_step_;
  std::vector<Tensor> best_maps_;
  Tensor step_number_;
  Values values_;              // of the last step that was read
  std::vector<size_t> asked_;  // by the last step
};

}  // namespace mtcki

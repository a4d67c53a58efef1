// (4) Contrast of the current batch with the history (CMI; docs/method.md):
//
//   φ_m(x) = concat over the chosen layers of GAP(layer input)
//   h      = Linear(C,C) − ReLU − Linear(C,D), L2-normalised
//   u_i = h(φ(X_l)_i),  v_j = sg[h(φ(X_g)_j)],  i, j = 1..B+N'   (current batch, then bank pairs)
//   ℓ_i = −log( exp(u_i·v_i/τ) / Σ_j exp(u_i·v_j/τ) )
//   L_cr = mean_{i≤B} ℓ_i + mean_{i>B} ℓ_i        (second term 0 while the bank is empty)
//
// Bank rows train only the head; current rows the head and, through φ(X_l) only, the images.
//   cat    φ = concat_m φ_m/√dim_m, one head, one bank
//   each   a head and a bank per teacher, weighted mean
//   first  teacher 0 alone, unscaled: CMI
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "mtcki/losses/memory_bank.h"
#include "mtcki/losses/projection_head.h"
#include "mtcki/losses/term.h"

namespace mtcki {

// The loss of one head on features [B,C]. draw: bank rows (undefined: none).
Variable contrast_loss(nn::Module& head, const Variable& local, const Tensor& global,
                       const MemoryBank::Draw& draw, double tau);

class HistoryContrast : public LossTerm {
 public:
  // rows: how many rows can ever be added; a larger bank is not allocated.
  HistoryContrast(Teachers& teachers, const SynthesisConfig& config, int64_t rows, uint64_t seed);

  Needs needs(size_t m) const override;
  Rows rows() const override { return Rows::all; }
  // Which bank rows a step takes, per head: i64, undefined when there are none or the head is not
  // asked.
  std::vector<Tensor> draw(const std::vector<size_t>& asked, const Rng& rng) override;
  void see(const InversionStep& s, size_t k) override;
  Variable loss(const InversionStep& s) override;
  // ln of the keys, for the batch and for the past.
  std::optional<double> chance() const override { return chance_; }
  optim::Optimizer* optimizer() override { return optimizer_.get(); }
  // φ of the kept images go into the banks.
  void finish_batch(const Variable& global_view, const Variable& local_view) override;
  // Heads and their optimiser; the bank is kept in shards beside the run.
  void visit(State& s) override;

  size_t heads() const { return heads_.size(); }
  nn::Module& head(size_t h) { return *heads_.at(h); }
  MemoryBank& bank(size_t h) { return banks_.at(h); }
  // Per head, f32 [B,C]: what was added to the banks last, and adding.
  struct Features {
    std::vector<Tensor> local, global;
  };
  const Features& latest() const { return latest_; }
  void add(const std::vector<Tensor>& local, const std::vector<Tensor>& global);

 private:
  // Whether teacher m takes part, and whether head h does when these teachers are asked.
  bool uses(size_t m) const { return mode_ != CrMode::first || m == 0; }
  bool asked(size_t h, const std::vector<size_t>& subset) const;
  unsigned taps() const { return stage_ ? Teacher::kStages : Teacher::kBn; }
  // φ_m of one pass, with the mode's scale, of the rows of all ranks.
  Variable features(size_t m, const Teacher::View& view) const;
  // φ per teacher to φ per head (cat joins the teachers').
  std::vector<Variable> join(const std::vector<Variable>& per_teacher) const;

  Teachers& teachers_;
  CrMode mode_;
  bool stage_;
  double tau_;
  int64_t draw_;
  std::vector<int64_t> dims_;  // per teacher
  std::vector<std::unique_ptr<nn::Sequential>> heads_;
  std::vector<MemoryBank> banks_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::vector<Variable> local_, global_;  // φ of the step under way, per teacher
  double chance_ = 0;
  Features latest_;
};

}  // namespace mtcki

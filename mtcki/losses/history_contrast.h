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
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/losses/memory_bank.h"
#include "mtcki/losses/projection_head.h"
#include "mtcki/networks/teacher.h"
#include "optim/optimizer.h"

namespace mtcki {

// The loss of one head on features [B,C]. draw: bank rows (undefined: none). positive: the
// diagonal, made here when undefined.
Variable contrast_loss(nn::Module& head, const Variable& local, const Tensor& global,
                       const MemoryBank::Draw& draw, double tau, const Tensor& positive = {});

class HistoryContrast {
 public:
  // rows: how many rows can ever be added; a larger bank is not allocated.
  HistoryContrast(const Teachers& teachers, const SynthesisConfig& config, int64_t rows,
                  uint64_t seed);

  // What to tap, and whether teacher m takes part.
  unsigned taps() const { return stage_ ? Teacher::kStages : Teacher::kBn; }
  bool uses(size_t m) const { return mode_ != "first" || m == 0; }

  // φ_m of one pass; with the mode's scale.
  Variable features(size_t m, const Teacher::View& view) const;

  size_t heads() const { return heads_.size(); }
  nn::Module& head(size_t h) { return *heads_.at(h); }
  MemoryBank& bank(size_t h) { return banks_.at(h); }

  // One φ per head (cat joins the teachers'); undefined entries of `each` are left out.
  std::vector<Variable> join(const std::vector<Variable>& per_teacher) const;

  // Whether head h takes part when these teachers are asked (empty: all).
  bool asked(size_t h, const std::vector<size_t>& subset) const;
  // Which bank rows a step takes, per head: i64 on the CPU, undefined when there are none or the
  // head is not asked.
  std::vector<Tensor> draw_indices(const std::vector<size_t>& subset, const Rng& rng) const;
  std::vector<MemoryBank::Draw> rows(const std::vector<Tensor>& indices) const;

  // weights: per head; an entry whose local feature is undefined is skipped. draws: bank rows.
  Variable loss(const std::vector<Variable>& local, const std::vector<Tensor>& global,
                const std::vector<double>& weights, const std::vector<MemoryBank::Draw>& draws);

  // The same loss of heads that know nothing: ln of the keys, for the batch and for the past.
  double chance(const std::vector<Variable>& local, const std::vector<double>& weights,
                const std::vector<MemoryBank::Draw>& draws) const;

  void step() { optimizer_->step(); }
  void zero_grad() { optimizer_->zero_grad(); }
  void add(const std::vector<Tensor>& local, const std::vector<Tensor>& global);

  // Heads and their optimiser; the bank is kept in shards beside the run.
  nn::StateDict state_dict() const;
  void load_state_dict(const nn::StateDict& state);

 private:
  std::string mode_;
  bool stage_;
  double tau_;
  int64_t draw_;
  std::vector<int64_t> dims_;  // per teacher
  std::vector<std::unique_ptr<nn::Sequential>> heads_;
  std::vector<MemoryBank> banks_;
  DiagonalPositives diagonal_;
  std::unique_ptr<optim::Optimizer> optimizer_;
};

}  // namespace mtcki

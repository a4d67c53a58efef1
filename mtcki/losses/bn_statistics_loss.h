// (1) Batch-norm statistics over all teachers (docs/method.md):
//
//   L_BN = Σ_m w_m ρ_m Σ_l c_l ( ‖μ_{m,l} − μ̂_{m,l}‖₂ + ‖s_{m,l} − ŝ_{m,l}‖₂ )
//
// μ, s: mean and biased variance of the input of layer l over N, H, W. ρ_m by `reduce`:
//   sum    1
//   layer  L̄/|B_m|, the mean number of layers over this teacher's: every teacher counts alike
//   init   the mean of the teachers' first losses over this teacher's own
// c_l is `first` for the first layer of a teacher (DFED: 5), else 1.
// Only losses are averaged over teachers, never statistics. With momentum κ > 0 (Fast) the
// statistics inside the norms are (1−κ)·batch + κ·EMA; the EMA of a teacher is set by the first
// finished batch that asked it, and moves once with each such batch.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "mtcki/losses/term.h"

namespace mtcki {

class BnStatisticsLoss : public LossTerm {
 public:
  BnStatisticsLoss(const Teachers& teachers, BnReduce reduce, double momentum, double first = 1);

  Needs needs(size_t) const override { return {Teacher::kBn, {}}; }
  Rows rows() const override { return Rows::all; }
  std::vector<Tensor> draw(const std::vector<size_t>& asked, const Rng& rng) override;
  void see(const InversionStep& s, size_t k) override {
    if (k == 0) sums_.clear();  // of a step that failed
    sums_.push_back(layers(s.asked[k], s.global[k]));
  }
  Variable loss(const InversionStep& s) override;
  std::optional<std::string> variant(const std::vector<size_t>& asked) const override;
  // Moves the EMA of the teachers that were asked in the batch, by the statistics of their last
  // layers() call.
  void finish_batch(const Variable& global_view, const Variable& local_view) override;
  void visit(State& s) override;

  // Σ_l over the BN inputs that one pass of teacher m collected; scalar, without w_m ρ_m.
  // A teacher without batch norm gives an undefined Variable.
  Variable layers(size_t m, const Teacher::View& view);
  // Reduce `init` needs the first loss of every teacher before rho() is known.
  bool ready() const { return reduce_ != BnReduce::init || !rho_.empty(); }
  double rho(size_t m) const { return rho_.at(m); }

 private:
  struct Layer {
    Tensor running_mean, running_var;
    Tensor ema_mean, ema_var;    // undefined before the first finished batch
    Tensor last_mean, last_var;  // of the latest pass
  };
  Variable together(std::vector<Layer>& layers, const Teacher::View& view);
  Variable alone(const std::vector<Layer>& layers, size_t l, const Teacher::View& view,
                 Tensor* mean = nullptr, Tensor* var = nullptr) const;
  static void keep(Tensor& kept, const Tensor& value);
  void set_first_losses(const std::vector<double>& losses);
  // Whether an EMA takes part for teacher m: once a batch that asked it is finished, when there is
  // a momentum.
  bool blends(size_t m) const;

  BnReduce reduce_;
  double momentum_, first_;
  std::vector<std::vector<Layer>> layers_;  // [teacher][layer]
  std::vector<double> rho_;
  std::set<size_t> asked_;      // teachers of this batch so far
  std::vector<Variable> sums_;  // of the step under way, by asked teacher
};

}  // namespace mtcki

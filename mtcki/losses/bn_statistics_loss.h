// (1) Batch-norm statistics over all teachers (docs/method.md):
//
//   L_BN = Σ_m w_m ρ_m Σ_l ( ‖μ_{m,l} − μ̂_{m,l}‖₂ + ‖s_{m,l} − ŝ_{m,l}‖₂ )
//
// μ, s: mean and biased variance of the input of layer l over N, H, W. ρ_m by `reduce`:
//   sum    1
//   layer  L̄/|B_m|, the mean number of layers over this teacher's: every teacher counts alike
//   init   the mean of the teachers' first losses over this teacher's own
// Only losses are averaged over teachers, never statistics. With momentum κ > 0 (Fast) the
// statistics inside the norms are (1−κ)·batch + κ·EMA; the EMA of a teacher is set by the first
// finished batch that asked it, and moves once with each such batch.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "mtcki/networks/teacher.h"

namespace mtcki {

class BnStatisticsLoss {
 public:
  BnStatisticsLoss(const Teachers& teachers, std::string reduce, double momentum);

  // Σ_l over the BN inputs that one pass of teacher m collected; scalar, without w_m ρ_m.
  // A teacher without batch norm gives an undefined Variable.
  Variable layers(size_t m, const Teacher::View& view);
  // Reduce `init` needs the first loss of every teacher before rho() is known.
  bool ready() const { return reduce_ != "init" || !rho_.empty(); }
  void set_first_losses(const std::vector<double>& losses);
  double rho(size_t m) const { return rho_.at(m); }

  // Whether an EMA takes part for teacher m: once a batch that asked it is finished, when there is
  // a momentum.
  bool blends(size_t m) const;

  // After the last step of a batch: moves the EMA of the teachers that were asked in it, by the
  // statistics of their last layers() call.
  void finish_batch(const std::set<size_t>& asked);

  nn::StateDict state_dict() const;
  void load_state_dict(const nn::StateDict& state);

 private:
  struct Layer {
    Tensor running_mean, running_var;
    Tensor ema_mean, ema_var;    // undefined before the first finished batch
    Tensor last_mean, last_var;  // of the latest pass
  };
  Variable together(std::vector<Layer>& layers, const Teacher::View& view);
  static void keep(Tensor& kept, const Tensor& value);

  std::string reduce_;
  double momentum_;
  std::vector<std::vector<Layer>> layers_;  // [teacher][layer]
  std::vector<double> rho_;
};

}  // namespace mtcki

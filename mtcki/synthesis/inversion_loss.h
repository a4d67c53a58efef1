// The loss of one generator step (docs/method.md):
//   L_G = α L_BN + β L_cls + γ L_adv + λ L_cr + optional terms
// In a job of several ranks images, labels and views are this rank's rows; the loss is that of all
// rows, and so are φ. Contrast heads get their whole gradient on every rank.
// A term of weight 0 costs nothing: no pass, no tap, no local view is made for it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/history_contrast.h"
#include "mtcki/networks/student.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/synthesis/views.h"
#include "mtcki/training/metric_ring.h"

namespace mtcki {

class InversionLoss {
 public:
  // rows: rows the history bank can ever get.
  InversionLoss(Teachers& teachers, const SynthesisConfig& config, int64_t rows, uint64_t seed);

  struct Step {
    Tensor labels;  // i64 [B]
    ViewParameters views;
    Rng bank;                        // draws from the history, unless they are given:
    std::vector<Tensor> bank_index;  // HistoryContrast::draw_indices
    std::vector<size_t> subset;      // teachers asked in this step, ascending; empty: all
    Student* student = nullptr;      // for the adversarial term
    double cls = 0, adv = 0;         // β, γ of this stage
    MetricRing* ring = nullptr;      // deferred: values stay on the device
  };
  struct Result {
    Variable total;
    Tensor selected;  // total without the adversarial part; undefined when that is all there is
    // The same as numbers, and the terms, unweighted, as they were added. Not when deferred.
    double value = 0, select = 0;
    std::vector<std::pair<std::string, double>> terms;
    std::vector<Tensor> phi_local, phi_global;  // per head; undefined if not seen
  };
  Result evaluate(const Variable& images, const Step& step);

  // Forward MACs of teachers and student in a step on this many images.
  double macs(const Step& step, int64_t images) const;

  // φ of teachers that the step with the best images did not ask (no graph).
  void complete_features(const Tensor& images, const ViewParameters& views,
                         std::vector<Tensor>& local, std::vector<Tensor>& global);

  BnStatisticsLoss& bn() { return bn_; }
  const BnStatisticsLoss& bn() const { return bn_; }
  HistoryContrast* contrast() { return contrast_.get(); }
  const HistoryContrast* contrast() const { return contrast_.get(); }
  // False until `bn_reduce = init` has seen all teachers once.
  bool ready() const { return bn_.ready() || config_.bn == 0; }

 private:
  Teachers& teachers_;
  SynthesisConfig config_;
  std::vector<double> weights_;
  BnStatisticsLoss bn_;
  std::unique_ptr<HistoryContrast> contrast_;
};

}  // namespace mtcki

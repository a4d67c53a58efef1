// The loss of one step of synthesis (docs/method.md): the weighted sum of the terms of the table in
// losses/terms.cpp,
//   L_G = α L_BN + β L_cls + γ L_adv + λ L_cr + optional terms
// In a job of several ranks images, labels and views are this rank's rows; the loss is that of all
// rows. A term of weight 0 costs nothing: it is not made, and no pass, tap or view is made for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/history_contrast.h"
#include "mtcki/losses/term.h"
#include "mtcki/networks/student.h"
#include "mtcki/synthesis/views.h"
#include "mtcki/training/metric_ring.h"
#include "tensor/cuda/step_inputs.h"

namespace mtcki {

class InversionLoss {
 public:
  // rows: images that can ever be made, which bounds the history bank.
  InversionLoss(Teachers& teachers, const SynthesisConfig& config, int64_t rows, uint64_t seed);

  struct Step {
    Tensor labels;  // i64 [B]
    ViewParameters views;
    std::vector<size_t> asked;  // teachers of this step, ascending
    Student* student = nullptr;
    std::vector<std::vector<Tensor>> drawn;  // per term, made by draw()
  };
  // The host's part of a step: the terms' random draws, as inputs of the device.
  void draw(Step& step, const Rng& rng, StepInputs& inputs);

  struct Result {
    Variable total;
    Tensor selected;  // what chooses the best images; undefined when no term does
  };
  // Terms go to `values`, unweighted, as they are added.
  Result evaluate(const Variable& images, const Step& step, MetricRing& values);

  void zero_grad();  // of what the terms train themselves
  void update();
  // The batch is finished; these are its kept images and their views.
  void finish_batch(const Tensor& images, const ViewParameters& views);
  void visit(State& state);

  // Names the operations and the memory of a step, as far as they change from step to step; empty
  // when it has to read values on the host.
  std::string variant(const Step& step) const;
  // Whether any subset of the teachers may be asked: some terms have to see all of them once.
  bool ready() const;
  // Forward MACs of teachers and student in a step on this many images.
  double macs(const Step& step, int64_t images) const;

  // The term of a type, or null when its weight is 0.
  template <class T>
  T* find() const {
    for (const Weighted& t : terms_)
      if (auto* term = dynamic_cast<T*>(t.term.get())) return term;
    return nullptr;
  }
  HistoryContrast* contrast() const { return contrast_; }

  bool needs_student() const;

 private:
  struct Weighted {
    const LossTermRow* row;
    double weight;
    std::unique_ptr<LossTerm> term;
  };
  Needs needs(size_t teacher) const;  // of all terms together
  bool needs_local_view() const;
  InversionStep offer(const Variable& images, const Step& step);
  std::vector<size_t> everyone() const;

  Teachers& teachers_;
  int64_t pad_;
  std::vector<Weighted> terms_;  // those that choose the best images first
  HistoryContrast* contrast_;
};

}  // namespace mtcki

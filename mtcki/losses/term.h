// A term of a loss, on synthetic images (here) or on a student (student_term.h), and what a step of
// synthesis offers it. A term is a formula: InversionLoss asks the teachers for what all terms need,
// weights and adds them, and takes care of ranks, captured steps and the log.
// docs/adding-a-method.md shows how to write one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "mtcki/config/config.h"
#include "mtcki/config/loss_rows.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/state.h"
#include "optim/optimizer.h"
#include "tensor/rng.h"

namespace mtcki {

// What a term needs of one teacher: taps of its pass over the global view, and of a further pass
// over the local view. Logits and features of the global view are always there.
struct Needs {
  unsigned global = Teacher::kNone;
  std::optional<unsigned> local;
};

// What a term is computed from. Rows are those of this process.
struct InversionStep {
  Variable images;                   // [B,C,H,W] in [0,1]
  Variable global_view, local_view;  // local: undefined when no term needs it
  Tensor labels;                     // i64 [B]
  std::vector<size_t> asked;         // teachers of this step, ascending; entry k of the lists
                                     // below is that of teacher asked[k]
  std::vector<Teacher::View> global, local;
  std::vector<double> weights;  // w_m M/|asked|, for sums over teachers: unbiased in any subset
  std::vector<double> shares;   // w_m / Σ_asked w, for means over teachers
  Variable student_logits;      // of the global view; undefined when no term needs them
  std::vector<Variable> student_heads;  // likewise, by teacher; none where it has one head
  std::vector<Tensor> drawn;            // what this term's draw() gave, on the device

  std::vector<Variable> logits() const;  // of the asked teachers
};

// How the loss over a process's own rows becomes the loss over the batch of all processes.
enum class Rows {
  mean,  // it is a mean over rows: the average over processes
  all    // the term has used all_rows() and is the loss of all of them already
};

// Rows of all processes of a job, in order; x itself in a job of one.
Variable all_rows(const Variable& x);
// Σ_k weights[k] terms[k]; undefined terms are left out.
Variable weighted_sum(const std::vector<Variable>& terms, const std::vector<double>& weights);

template <class Step>
class Term {
 public:
  virtual ~Term() = default;

  virtual Rows rows() const { return Rows::mean; }
  // Scalar, unweighted; undefined when these teachers contribute nothing.
  virtual Variable loss(const Step& step) = 0;
  // What the last loss() is worth when the term knows nothing; logged beside it and watched
  // (mtcki/log/chance_watch.h). nullopt: the term has no such level.
  virtual std::optional<double> chance() const { return std::nullopt; }
  virtual void visit(State&) {}
};

class LossTerm : public Term<InversionStep> {
 public:
  virtual Needs needs(size_t /*teacher*/) const { return {}; }
  // Whether the term takes part in the choice of the best images of a batch.
  virtual bool selects() const { return true; }

  // The host's part of a step, before it: what the term draws at random.
  virtual std::vector<Tensor> draw(const std::vector<size_t>& /*asked*/, const Rng&) { return {}; }
  // The part that depends on teacher asked[k] alone, beside the passes of the other teachers.
  virtual void see(const InversionStep& /*step*/, size_t /*k*/) {}

  // Names which operations loss() issues for these teachers, as far as that changes from step to
  // step. nullopt: this step has to read values on the host.
  virtual std::optional<std::string> variant(const std::vector<size_t>& /*asked*/) const {
    return "";
  }
  // Of what the term trains itself, if anything.
  virtual optim::Optimizer* optimizer() { return nullptr; }
  // The batch is finished, these views of its kept images are the best ones; no gradients.
  virtual void finish_batch(const Variable& /*global_view*/, const Variable& /*local_view*/) {}
};

// A term that is a formula and nothing else; T: LossTerm or StudentTerm.
template <class T, class Step>
class Plain : public T {
 public:
  using Formula = std::function<Variable(const Step&)>;
  Plain(Rows rows, Formula formula) : rows_(rows), formula_(std::move(formula)) {}
  Rows rows() const override { return rows_; }
  Variable loss(const Step& step) override { return formula_(step); }

 private:
  Rows rows_;
  Formula formula_;
};

// What a term is made from.
struct LossTermContext {
  Teachers& teachers;
  const SynthesisConfig& config;
  int64_t rows;  // images that can ever be made
  uint64_t seed;
};

}  // namespace mtcki

#include "mtcki/synthesis/inversion_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/parallel.h"
#include "autograd/side_stream.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/losses/activation_loss.h"
#include "mtcki/losses/adversarial.h"
#include "mtcki/losses/class_balance.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/losses/teacher_consensus.h"

namespace mtcki {

namespace {

constexpr char kHint[] =
    "lower synthesis.lr_g or the weight of this term, or look at the teachers' weights";

// Adds weighted terms, remembers their values.
class Sum {
 public:
  Sum(InversionLoss::Result& result, MetricRing* ring) : result_(result), ring_(ring) {}
  void operator()(const char* name, double weight, const Variable& term, bool selects = true) {
    if (!term.defined()) return;
    const Variable weighted = weight == 1.0 ? term : mul(term, weight);
    result_.total = result_.total.defined() ? add(result_.total, weighted) : weighted;
    if (selects) result_.selected = result_.total.data();
    if (ring_) {
      ring_->put(name, term.data(), kHint);
      return;
    }
    const double value = term.item();
    if (!std::isfinite(value))
      throw NumericError(str("loss term ", name, " is ", value, "; ", kHint));
    result_.terms.emplace_back(name, value);
    result_.value += weight * value;
    if (selects) result_.select += weight * value;
  }
  // What the term is at chance, for the log.
  void chance(const char* name, double value) {
    if (ring_)
      ring_->put(str(name, kChanceSuffix), Tensor::full({}, value, DType::f32, device_of_total()));
    else
      result_.terms.emplace_back(str(name, kChanceSuffix), value);
  }

 private:
  Device device_of_total() const { return result_.total.data().device(); }
  InversionLoss::Result& result_;
  MetricRing* ring_;
};

Variable accumulate(const Variable& total, const Variable& term, double weight) {
  if (!term.defined()) return total;
  const Variable part = weight == 1.0 ? term : mul(term, weight);
  return total.defined() ? add(total, part) : part;
}

}  // namespace

InversionLoss::InversionLoss(Teachers& teachers, const SynthesisConfig& config, int64_t rows,
                             uint64_t seed)
    : teachers_(teachers),
      config_(config),
      weights_(teachers.weights()),
      bn_(teachers, config.bn_reduce, config.bn_mmt) {
  if (config.cr > 0) {
    if (config.teachers_per_step > 0 && config.cr_mode == "cat" &&
        config.teachers_per_step < static_cast<int64_t>(teachers.size()))
      throw UsageError(
          "synthesis.cr_mode = \"cat\" joins the features of all teachers and cannot go with "
          "synthesis.teachers_per_step; use cr_mode \"each\" or \"first\"");
    contrast_ = std::make_unique<HistoryContrast>(teachers, config, rows, seed);
  }
}

InversionLoss::Result InversionLoss::evaluate(const Variable& images, const Step& step) {
  Result result;
  std::vector<size_t> subset = step.subset;
  if (subset.empty()) {
    subset.resize(teachers_.size());
    std::iota(subset.begin(), subset.end(), size_t{0});
  }
  // Sums over teachers are re-weighted by M/|subset|, which leaves their expectation; weights of
  // the fused logits add up to 1 within the subset.
  const double boost = static_cast<double>(teachers_.size()) / static_cast<double>(subset.size());
  std::vector<double> w, fused;
  double mass = 0;
  for (const size_t m : subset) mass += weights_[m];
  for (const size_t m : subset) {
    w.push_back(weights_[m] * boost);
    fused.push_back(mass > 0 ? weights_[m] / mass : 1.0 / static_cast<double>(subset.size()));
  }

  const Communicator& comm = communicator();
  // Means over this rank's rows become means over all rows.
  const auto all = [&](const Variable& term) {
    return term.defined() ? mean_over_ranks(term, comm) : term;
  };
  const bool contrast = contrast_ != nullptr;
  const Variable x_global = global_view(images, step.views, config_.pad);
  const Variable x_local = contrast ? local_view(images, step.views) : Variable();

  std::vector<Variable> logits, features, bn_sums(subset.size());
  std::vector<Variable> local(teachers_.size());
  std::vector<Tensor> global(teachers_.size());
  const auto ask = [&](size_t k) {
    const size_t m = subset[k];
    Teacher& teacher = teachers_[m];
    const bool contrasts = contrast && contrast_->uses(m);
    unsigned taps = config_.bn > 0 ? Teacher::kBn : Teacher::kNone;
    if (contrasts) taps |= contrast_->taps();
    const Teacher::View view = teacher.view(x_global, taps);
    logits.push_back(view.logits);
    features.push_back(view.feature);
    if (config_.bn > 0) bn_sums[k] = bn_.layers(m, view);
    if (contrasts) {
      {
        const NoGradScope keys;  // the global side of the contrast gets no gradient
        global[m] = comm.all_gather(contrast_->features(m, view).data());
      }
      local[m] = gather_over_ranks(
          contrast_->features(m, teacher.view(x_local, contrast_->taps() | Teacher::kTapsOnly)),
          comm);
    }
  };
  // Collectives of several ranks need one order.
  Branches branches(comm.size() == 1 ? subset.size() : 1, images.data().device());
  for (size_t k = 0; k < subset.size(); ++k) branches.run([&] { ask(k); });
  branches.join();

  Sum sum(result, step.ring);
  if (config_.bn > 0) {
    if (!bn_.ready()) {
      std::vector<double> first;
      for (const Variable& v : bn_sums) first.push_back(v.defined() ? v.item() : 0.0);
      bn_.set_first_losses(first);
    }
    Variable total;
    for (size_t k = 0; k < subset.size(); ++k)
      total = accumulate(total, bn_sums[k], w[k] * bn_.rho(subset[k]));
    sum("bn_statistics", config_.bn, total);
  }
  if (step.cls > 0)
    sum("class_prior", step.cls,
        all(config_.cls_mode == "ens" ? class_prior_ens(logits, fused, step.labels)
                                      : class_prior_each(logits, w, step.labels)));
  if (contrast) {
    std::vector<Variable> asked_local;
    std::vector<Variable> asked_global;
    for (size_t m = 0; m < teachers_.size(); ++m) {
      if (!contrast_->uses(m)) continue;
      asked_local.push_back(local[m]);
      asked_global.push_back(global[m].defined() ? Variable(global[m]) : Variable());
    }
    const bool any = std::any_of(asked_local.begin(), asked_local.end(),
                                 [](const Variable& v) { return v.defined(); });
    if (any) {
      const std::vector<Variable> phi_l = contrast_->join(asked_local);
      const std::vector<Variable> phi_g = contrast_->join(asked_global);
      std::vector<double> head_weights(phi_l.size(), 1.0);
      if (config_.cr_mode == "each") {
        for (size_t m = 0; m < head_weights.size(); ++m) head_weights[m] = weights_[m] * boost;
      } else if (config_.cr_mode == "first") {
        head_weights[0] = boost;
      }
      for (const Variable& v : phi_l) result.phi_local.push_back(v.defined() ? v.data() : Tensor());
      for (const Variable& v : phi_g)
        result.phi_global.push_back(v.defined() ? v.data() : Tensor());
      const std::vector<Tensor> index = step.bank_index.empty()
                                            ? contrast_->draw_indices(step.subset, step.bank)
                                            : step.bank_index;
      const std::vector<MemoryBank::Draw> past = contrast_->rows(index);
      sum("history_contrast", config_.cr,
          contrast_->loss(phi_l, result.phi_global, head_weights, past));
      sum.chance("history_contrast", contrast_->chance(phi_l, head_weights, past));
    } else {
      result.phi_local.resize(contrast_->heads());
      result.phi_global.resize(contrast_->heads());
    }
  }
  if (config_.consensus > 0)
    sum("teacher_consensus", config_.consensus, all(teacher_consensus(logits, fused)));
  if (config_.tv > 0) sum("total_variation", config_.tv, all(total_variation(images)));
  if (config_.l2 > 0) sum("image_norm", config_.l2, image_norm(images));
  if (config_.activation > 0 || config_.balance > 0) {
    Variable act, balance;
    for (size_t k = 0; k < subset.size(); ++k) {
      if (config_.activation > 0) act = accumulate(act, activation_loss(features[k]), w[k]);
      if (config_.balance > 0) balance = accumulate(balance, class_balance(logits[k]), w[k]);
    }
    sum("activation_loss", config_.activation, all(act));
    sum("class_balance", config_.balance, balance);
  }
  if (step.adv > 0 && step.student) {
    const Variable judged = step.student->judged(x_global);
    sum("adversarial", step.adv,
        all(config_.adv_each ? adversarial_each(config_.adv_mode, logits, fused, judged)
                             : adversarial(config_.adv_mode, fuse_logits(logits, fused), judged)),
        false);
  }
  if (!result.total.defined())
    throw UsageError("synthesis: every loss weight is 0; set synthesis.bn or synthesis.cls");
  return result;
}

double InversionLoss::macs(const Step& step, int64_t images) const {
  const double batch = static_cast<double>(images);
  double total = 0;
  for (size_t m = 0; m < teachers_.size(); ++m) {
    if (!step.subset.empty() &&
        std::find(step.subset.begin(), step.subset.end(), m) == step.subset.end())
      continue;
    total += batch * teachers_[m].macs();
    if (contrast_ && contrast_->uses(m)) total += batch * teachers_[m].macs();
  }
  if (step.adv > 0 && step.student) total += batch * step.student->macs();
  return total;
}

void InversionLoss::complete_features(const Tensor& images, const ViewParameters& views,
                                      std::vector<Tensor>& local, std::vector<Tensor>& global) {
  if (!contrast_) return;
  const NoGradScope no_grad;
  local.resize(contrast_->heads());
  global.resize(contrast_->heads());
  // Joined features (cat) are always complete: that mode asks every teacher in every step.
  for (size_t h = 0; h < contrast_->heads(); ++h) {
    if (local[h].defined()) continue;
    const unsigned taps = contrast_->taps() | Teacher::kTapsOnly;
    const auto phi = [&](const Variable& x) {
      return communicator().all_gather(contrast_->features(h, teachers_[h].view(x, taps)).data());
    };
    local[h] = phi(local_view(Variable(images), views));
    global[h] = phi(global_view(Variable(images), views, config_.pad));
  }
}

}  // namespace mtcki

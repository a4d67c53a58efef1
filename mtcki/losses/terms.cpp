// The table of loss terms. A term that is a formula and nothing else stands here completely; one
// that remembers something is a class of its own file.
#include "autograd/functions.h"
#include "autograd/parallel.h"
#include "mtcki/losses/activation_loss.h"
#include "mtcki/losses/adversarial.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/class_balance.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/history_contrast.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/losses/teacher_consensus.h"
#include "mtcki/losses/term.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

using PlainTerm = Plain<LossTerm, InversionStep>;

auto plain(Rows rows, const PlainTerm::Formula& formula) {
  return [rows, formula](const LossTermContext&) {
    return std::make_unique<PlainTerm>(rows, formula);
  };
}

// f of every asked teacher, as a weighted sum.
template <class F>
Variable over_teachers(const InversionStep& s, const F& f) {
  std::vector<Variable> terms;
  for (const Teacher::View& view : s.global) terms.push_back(f(view));
  return weighted_sum(terms, s.weights);
}

std::unique_ptr<LossTerm> class_prior(const LossTermContext& c) {
  const bool ens = c.config.cls_mode == ClsMode::ens;
  const double focus = c.config.cls_focus;
  return std::make_unique<PlainTerm>(Rows::mean, [ens, focus](const InversionStep& s) {
    return ens ? class_prior_ens(s.logits(), s.shares, s.labels, focus)
               : class_prior_each(s.logits(), s.weights, s.labels);
  });
}

// What drives student and teachers apart has no say in which images are kept.
struct Against : PlainTerm {
  explicit Against(const Formula& formula) : PlainTerm(Rows::mean, formula) {}
  bool selects() const override { return false; }
};

std::unique_ptr<LossTerm> disagreement(const LossTermContext& c) {
  const AdvMode mode = c.config.adv_mode;
  const double t = c.config.adv_temperature;
  if (c.config.adv_each)
    return std::make_unique<Against>([mode, t](const InversionStep& s) {
      return adversarial_each(mode, s.logits(), s.shares, s.student_logits, t);
    });
  return std::make_unique<Against>([mode, t](const InversionStep& s) {
    return adversarial(mode, weighted_sum(s.logits(), s.shares), s.student_logits, t);
  });
}

std::unique_ptr<LossTerm> student_divergence(const LossTermContext& c) {
  return std::make_unique<Against>([t = c.config.adv_temperature](const InversionStep& s) {
    return mul(kl_div(weighted_sum(s.logits(), s.shares), s.student_logits, t), -t * t);
  });
}

// The teachers are constants: only through the student do images learn what it gets wrong.
std::unique_ptr<LossTerm> head_divergence(const LossTermContext& c) {
  return std::make_unique<Against>([t = c.config.adv_temperature](const InversionStep& s) {
    std::vector<Variable> terms;
    for (size_t k = 0; k < s.asked.size(); ++k)
      terms.push_back(kl_div(s.global[k].logits.detach(), s.student_heads.at(s.asked[k]), t));
    const Variable fused = weighted_sum(s.logits(), s.shares).detach();
    return mul(add(weighted_sum(terms, s.weights), kl_div(fused, s.student_logits, t)), -t * t);
  });
}

std::unique_ptr<LossTerm> l1_distance(const LossTermContext&) {
  return std::make_unique<Against>([](const InversionStep& s) {
    return neg(mean(abs(sub(weighted_sum(s.logits(), s.shares), s.student_logits))));
  });
}

}  // namespace

const std::vector<LossTermRow>& inversion_terms() {
  static const std::vector<LossTermRow> rows{
      {"bn", 1.0, "bn_statistics", "weight alpha of the batch-norm statistics loss",
       "Σ_m w_m ρ_m Σ_l (‖μ − μ̂‖₂ + ‖s − ŝ‖₂)",
       [](const LossTermContext& c) {
         return std::make_unique<BnStatisticsLoss>(c.teachers, c.config.bn_reduce, c.config.bn_mmt,
                                                   c.config.bn_first);
       }},
      {"cls", 1.0, "class_prior", "weight beta of the class prior",
       "Σ_m w_m CE(z_m, y), or CE(Σ_m w_m z_m, y)", class_prior},
      {"cr", 0.8, "history_contrast", "weight lambda of the contrast with the history",
       "InfoNCE of h(φ(X_l)) against h(φ(X_g)) of the batch and of bank pairs",
       [](const LossTermContext& c) {
         return std::make_unique<HistoryContrast>(c.teachers, c.config, c.rows, c.seed);
       }},
      {"consensus", 0.0, "teacher_consensus", "weight of the teachers' consensus",
       "Σ_m w_m KL(p_m ‖ Σ_m w_m p_m)",
       plain(Rows::mean,
             [](const InversionStep& s) { return teacher_consensus(s.logits(), s.shares); })},
      {"tv", 0.0, "total_variation", "weight of the total variation of the images",
       "Σ over four directions of mean |x_i − x_j|",
       plain(Rows::mean, [](const InversionStep& s) { return total_variation(s.images); })},
      {"tv_l2", 0.0, "total_variation_l2",
       "weight of the total variation in DeepInversion's second form",
       "Σ over four directions of ‖x_i − x_j‖₂ over the batch",
       plain(Rows::all,
             [](const InversionStep& s) { return total_variation_l2(all_rows(s.images)); })},
      {"l2", 0.0, "image_norm", "weight of the norm of the images", "‖x‖₂",
       plain(Rows::all, [](const InversionStep& s) { return image_norm(all_rows(s.images)); })},
      {"activation", 0.0, "activation_loss", "weight of the feature activation (DAFL)",
       "−Σ_m w_m mean |f_m|",
       plain(Rows::mean,
             [](const InversionStep& s) {
               return over_teachers(s,
                                    [](const auto& view) { return activation_loss(view.feature); });
             })},
      {"one_hot", 0.0, "one_hot",
       "weight of the cross entropy to each teacher's own class (DAFL, DFQ)",
       "Σ_m w_m CE(z_m, argmax z_m)",
       plain(Rows::mean,
             [](const InversionStep& s) {
               return over_teachers(s, [](const auto& view) {
                 return cross_entropy(view.logits, argmax(view.logits.data(), 1));
               });
             })},
      {"balance", 0.0, "class_balance", "weight of the class balance (DAFL, DFQ)",
       "Σ_m w_m Σ_k p̂_k log p̂_k, p̂ = batch mean of softmax(z_m)",
       plain(Rows::all,
             [](const InversionStep& s) {
               return over_teachers(
                   s, [](const auto& view) { return class_balance(all_rows(view.logits)); });
             })},
      {"adv_kl", 0.0, "adversarial_kl",
       "weight of the divergence of the student from the teachers, whoever is right (ZSKT, DFQ)",
       "−T² KL(p̄ ‖ p_S)", student_divergence, true},
      {"adv_l1", 0.0, "adversarial_l1",
       "weight of the distance of the student's logits from the teachers' (DFAD, DFED)",
       "−mean |z̄ − z_S|", l1_distance, true},
      {"adv_heads", 0.0, "adversarial_heads",
       "weight of the divergence of the student's heads, and of their mean, from the teachers "
       "(CDFKD)",
       "−T² (Σ_m w_m KL(p_m ‖ p_S,m) + KL(p̄ ‖ p_S))", head_divergence, true},
      {"adv", 0.0, "adversarial", "weight gamma of the disagreement with the student",
       "−T² mean k KL(p̄ ‖ p_S), or 1 − JS(p̄, p_S)/ln 2", disagreement, true}};
  return rows;
}

double& LossWeights::operator[](const std::string& key) {
  for (auto& [name, weight] : weights_)
    if (name == key) return weight;
  throw Error(str("no loss term has the key ", key));
}

double LossWeights::at(const std::string& key) const { return LossWeights(*this)[key]; }

std::vector<Variable> InversionStep::logits() const {
  std::vector<Variable> out;
  for (const Teacher::View& view : global) out.push_back(view.logits);
  return out;
}

Variable all_rows(const Variable& x) { return gather_over_ranks(x, communicator()); }

Variable weighted_sum(const std::vector<Variable>& terms, const std::vector<double>& weights) {
  Variable total;
  for (size_t k = 0; k < terms.size(); ++k) {
    if (!terms[k].defined()) continue;
    const Variable part = weights[k] == 1.0 ? terms[k] : mul(terms[k], weights[k]);
    total = total.defined() ? add(total, part) : part;
  }
  return total;
}

}  // namespace mtcki

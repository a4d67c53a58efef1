#include "mtcki/synthesis/inversion_loss.h"

#include <algorithm>
#include <numeric>

#include "autograd/parallel.h"
#include "autograd/side_stream.h"
#include "mtcki/log/chance_watch.h"

namespace mtcki {

namespace {

constexpr char kHint[] =
    "lower synthesis.lr_g or the weight of this term, or look at the teachers' weights";

}  // namespace

InversionLoss::InversionLoss(Teachers& teachers, const SynthesisConfig& config, int64_t rows,
                             uint64_t seed)
    : teachers_(teachers), pad_(config.pad) {
  for (const LossTermRow& row : inversion_terms())
    if (const double weight = config.loss.at(row.key); weight > 0)
      terms_.push_back({&row, weight, row.make({teachers, config, rows, seed})});
  if (terms_.empty())
    throw UsageError("synthesis: every loss weight is 0; set synthesis.bn or synthesis.cls");
  std::stable_partition(terms_.begin(), terms_.end(),
                        [](const Weighted& t) { return t.term->selects(); });
  contrast_ = find<HistoryContrast>();
}

Needs InversionLoss::needs(size_t teacher) const {
  Needs all;
  for (const Weighted& t : terms_) {
    const Needs own = t.term->needs(teacher);
    all.global |= own.global;
    if (own.local) all.local = all.local.value_or(Teacher::kTapsOnly) | *own.local;
  }
  return all;
}

bool InversionLoss::needs_student() const {
  return std::ranges::any_of(terms_, [](const Weighted& t) { return t.row->needs_student; });
}

bool InversionLoss::needs_local_view() const {
  const std::vector<size_t> all = everyone();
  return std::ranges::any_of(all, [&](size_t m) { return needs(m).local.has_value(); });
}

std::vector<size_t> InversionLoss::everyone() const {
  std::vector<size_t> all(teachers_.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

void InversionLoss::draw(Step& step, const Rng& rng, StepInputs& inputs) {
  step.drawn.clear();
  for (const Weighted& t : terms_) {
    std::vector<Tensor> drawn = t.term->draw(step.asked, rng);
    for (size_t i = 0; i < drawn.size(); ++i)
      drawn[i] = inputs.set(str(t.row->key, " ", i), drawn[i]);
    step.drawn.push_back(std::move(drawn));
  }
}

// What a step offers its terms: weights, views, and the passes of the asked teachers with whatever
// any of the terms needs.
InversionStep InversionLoss::offer(const Variable& images, const Step& step) {
  InversionStep s{.images = images, .labels = step.labels, .asked = step.asked};
  const std::vector<double> weights = teachers_.weights();
  double mass = 0;
  for (const size_t m : s.asked) mass += weights[m];
  const auto count = static_cast<double>(s.asked.size());
  const double boost = static_cast<double>(teachers_.size()) / count;
  for (const size_t m : s.asked) {
    s.weights.push_back(weights[m] * boost);
    s.shares.push_back(mass > 0 ? weights[m] / mass : 1.0 / count);
  }
  s.global_view = global_view(images, step.views, pad_);
  if (needs_local_view()) s.local_view = local_view(images, step.views);
  s.global.resize(s.asked.size());
  s.local.resize(s.asked.size());
  // Collectives of several ranks need one order.
  Branches branches(communicator().size() == 1 ? s.asked.size() : 1, images.data().device());
  for (size_t k = 0; k < s.asked.size(); ++k)
    branches.run([&, k] {
      Teacher& teacher = teachers_[s.asked[k]];
      const Needs wanted = needs(s.asked[k]);
      s.global[k] = teacher.view(s.global_view, wanted.global);
      if (wanted.local) s.local[k] = teacher.view(s.local_view, *wanted.local);
      for (const Weighted& t : terms_) t.term->see(s, k);
      // What a term has not kept of the taps is not needed any more.
      s.global[k].bn_inputs.clear();
      s.global[k].stage_inputs.clear();
      s.local[k] = {};
    });
  branches.join();
  if (needs_student()) {
    if (!step.student)
      throw UsageError("synthesis: a loss term needs a student, and there is none in this stage");
    Student::Frozen y = step.student->frozen(s.global_view);
    s.student_logits = y.logits;
    s.student_heads = std::move(y.heads);
  }
  return s;
}

InversionLoss::Result InversionLoss::evaluate(const Variable& images, const Step& step,
                                              MetricRing& values) {
  InversionStep offered = offer(images, step);
  Result result;
  for (size_t i = 0; i < terms_.size(); ++i) {
    const Weighted& t = terms_[i];
    offered.drawn = step.drawn.at(i);
    Variable term = t.term->loss(offered);
    if (!term.defined()) continue;
    if (t.term->rows() == Rows::mean) term = mean_over_ranks(term, communicator());
    values.put(t.row->name, term.data(), kHint);
    if (const auto chance = t.term->chance())
      values.put(str(t.row->name, kChanceSuffix),
                 Tensor::full({}, *chance, DType::f32, term.data().device()));
    const Variable weighted = t.weight == 1.0 ? term : mul(term, t.weight);
    result.total = result.total.defined() ? add(result.total, weighted) : weighted;
    if (t.term->selects()) result.selected = result.total.data();
  }
  if (!result.total.defined())
    throw UsageError("synthesis: no loss term has anything to say of these teachers");
  return result;
}

void InversionLoss::zero_grad() {
  for (const Weighted& t : terms_)
    if (optim::Optimizer* o = t.term->optimizer()) o->zero_grad();
}

void InversionLoss::update() {
  for (const Weighted& t : terms_)
    if (optim::Optimizer* o = t.term->optimizer()) o->step();
}

void InversionLoss::finish_batch(const Tensor& images, const ViewParameters& views) {
  const NoGradScope no_grad;
  const Variable x(images);
  const Variable global = global_view(x, views, pad_);
  const Variable local = needs_local_view() ? local_view(x, views) : Variable();
  for (const Weighted& t : terms_) t.term->finish_batch(global, local);
}

void InversionLoss::visit(State& state) {
  for (const Weighted& t : terms_) state(t.row->key, *t.term);
}

std::string InversionLoss::variant(const Step& step) const {
  std::string name;
  for (const size_t m : step.asked) name += str(" t", m);
  for (size_t i = 0; i < terms_.size(); ++i) {
    const auto own = terms_[i].term->variant(step.asked);
    if (!own) return "";
    name += str(" ", terms_[i].row->key, " ", *own);
    for (const Tensor& t : step.drawn.at(i))
      name += t.defined() ? t.shape().to_string() : std::string("-");
  }
  return name;
}

bool InversionLoss::ready() const {
  return std::ranges::all_of(
      terms_, [all = everyone()](const Weighted& t) { return t.term->variant(all).has_value(); });
}

double InversionLoss::macs(const Step& step, int64_t images) const {
  double each = 0;
  for (const size_t m : step.asked) each += (needs(m).local ? 2 : 1) * teachers_[m].macs();
  if (needs_student() && step.student) each += step.student->macs();
  return each * static_cast<double>(images);
}

}  // namespace mtcki

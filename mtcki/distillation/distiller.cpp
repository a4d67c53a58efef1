#include "mtcki/distillation/distiller.h"

#include <algorithm>

#include "autograd/parallel.h"
#include "autograd/side_stream.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/training/step_metrics.h"
#include "tensor/context.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

namespace {

constexpr char kHint[] = "lower distill.lr";

}  // namespace

Distiller::Distiller(Teachers& teachers, Student& student, const DistillConfig& config,
                     int64_t total_steps, uint64_t seed, const Compute& compute)
    : teachers_(teachers),
      student_(student),
      config_(config),
      total_steps_(total_steps),
      terms_(make_terms({teachers, student, config, seed})),
      trainer_(student.net(), parameters(), config,
               schedule_of(config, config.epochs, total_steps)),
      runner_(compute.at(student.device()), "distill.batch_size", config.batch_size) {}

std::vector<Distiller::Weighted> Distiller::make_terms(const StudentTermContext& context) {
  std::vector<Weighted> terms;
  for (const StudentTermRow& row : student_terms())
    if (const double weight = context.config.loss.at(row.key); weight > 0)
      terms.push_back({&row, weight, row.make(context)});
  return terms;
}

std::vector<optim::ParameterGroup> Distiller::parameters() const {
  std::vector<optim::ParameterGroup> groups{optim::group_of(student_.net())};
  for (const Weighted& t : terms_)
    if (auto own = t.term->parameters(); !own.empty()) groups.push_back({std::move(own)});
  return groups;
}

TeacherQuestion Distiller::question(bool features) const {
  return {features, config_.teacher_bn == TeacherBn::batch};
}

void Distiller::keep_teacher_outputs(const data::ImageSet& pool,
                                     const data::LoaderOptions& options) {
  const bool features =
      std::ranges::any_of(terms_, [](const Weighted& t) { return t.term->needs_features(); });
  kept_ = std::make_unique<KeptTeacherOutputs>(teachers_, pool, options, question(features));
  kept_images_ = pool.size();
  runner_.forget_graphs();
}

TeacherOutputs Distiller::teacher_outputs(const data::Batch& batch, bool features) {
  const StageScope scope("distill/teachers");
  return kept_ && batch.view_row.defined()
             ? kept_->rows(batch.view_row)
             : ask_teachers(teachers_, batch.images, question(features));
}

int64_t Distiller::images_asked(Replay& replay, int64_t step) const {
  if (!kept_) return replay.rows() * communicator().size();
  const int64_t per_pass = replay.batches_per_pass();
  const bool first_use = step % per_pass == 0 && step / per_pass < config_.views;
  return first_use ? kept_images_ : 0;
}

std::vector<Distiller::Active> Distiller::active(int64_t step) {
  std::vector<Active> out;
  for (const Weighted& t : terms_) {
    const double rise = t.term->ramp() * static_cast<double>(total_steps_);
    const double weight =
        rise > 0 ? t.weight * std::min(1.0, static_cast<double>(step) / rise) : t.weight;
    if (weight <= 0) continue;
    out.push_back({&t, weight, {}});
    if (rise > 0 && is_deferred())
      out.back().there = runner_.inputs().set(str("weight of ", t.row->key), weight);
  }
  return out;
}

// The teachers' passes with their maps, and a graph that begins at the images.
std::vector<Teacher::View> Distiller::teacher_views(const Tensor& images) {
  const StageScope scope("distill/teachers");
  std::vector<Teacher::View> views(teachers_.size());
  const Variable x(images, true);
  Branches branches(teachers_.size(), images.device());
  for (size_t m = 0; m < teachers_.size(); ++m)
    branches.run([&, m] { views[m] = teachers_[m].view(x, Teacher::kStages | Teacher::kMap); });
  branches.join();
  return views;
}

void Distiller::issue(Replay& replay, const std::vector<Active>& terms) {
  const data::Batch batch = replay.batch();
  MetricRing& values = runner_.values();
  const auto any = [&](bool (StudentTerm::*needs)() const) {
    return std::ranges::any_of(terms, [&](const Active& t) { return (*t.of->term.*needs)(); });
  };
  const bool maps = any(&StudentTerm::needs_maps);
  StudentStep s;
  s.labels = batch.labels;
  if (maps) {
    s.views = teacher_views(batch.images);
    for (const Teacher::View& view : s.views) {
      s.logits.push_back(view.logits.data());
      s.features.push_back(view.feature.data());
    }
  } else {
    TeacherOutputs teachers = teacher_outputs(batch, any(&StudentTerm::needs_features));
    s.logits = std::move(teachers.logits);
    s.features = std::move(teachers.features);
  }
  s.weights = teachers_.weights();
  s.temperature = config_.temperature;
  const StageScope scope("distill/student");
  s.targets = fused_targets(config_.fuse, s.logits, s.weights, config_.temperature, batch.labels);
  if (config_.agree > 0)
    s.counts = agreement_weights(s.targets, s.logits, s.weights, config_.agree);
  trainer_.zero_grad();
  s.student = student_.features(Variable(batch.images),
                                maps ? student_.net().stages() : std::vector<nn::Module*>(), maps);
  const Communicator& comm = communicator();
  Variable total;
  for (const Active& t : terms) {
    StudentTerm& term = *t.of->term;
    Variable loss = term.loss(s);
    if (term.rows() == Rows::mean) loss = mean_over_ranks(loss, comm);
    values.put(t.of->row->name, loss.data(), kHint);
    if (const auto chance = term.chance())
      values.put(str(t.of->row->name, kChanceSuffix),
                 Tensor::full({}, *chance, DType::f32, student_.device()));
    if (t.there.defined())
      loss = mul(loss, Variable(t.there));
    else if (t.weight != 1.0)
      loss = mul(loss, t.weight);
    total = total.defined() ? add(total, loss) : loss;
  }
  values.put("loss", total.data());
  values.put("agree",
             mean_over_ranks(percent_agreement(s.student.logits.data(), s.targets), comm).data());
  if (replay.draws_by_loss())
    replay.learned(kl_rows(s.targets, s.student.logits.data(), config_.temperature));
  total.backward();
  for (const Active& t : terms) t.of->term->finish_backward();
  trainer_.update(values);
}

Values Distiller::step(Replay& replay, int64_t step) {
  replay.prepare(step);
  trainer_.prepare(step);
  student_.net().train();
  const std::vector<Active> terms = active(step);
  if (kept_) {
    const StageScope scope("distill/teachers");
    runner_.before_step([&] { kept_->make(step / replay.batches_per_pass() % config_.views); });
  }
  std::string variant = str("distill ", replay.rows(), replay.variant());
  for (const Active& t : terms) variant += str(" ", t.of->row->key);
  if (!std::ranges::all_of(terms, [](const Active& t) { return t.of->term->settled(); }))
    variant.clear();  // every step has its own shapes
  Values values = runner_.run(step, variant, [&] { issue(replay, terms); });
  for (const Active& t : terms) t.of->term->finish_step();
  ++budget_.kd_steps;
  const bool back =
      std::ranges::any_of(terms_, [](const Weighted& t) { return t.term->looks_back(); });
  budget_.kd_forward_macs +=
      (back ? 2 : 1) * teachers_.macs() * static_cast<double>(images_asked(replay, step));
  return values.empty() ? values : with_rate(std::move(values), trainer_.lr());
}

Values Distiller::read() { return with_rate(runner_.read(), trainer_.lr()); }

void Distiller::visit(State& s) {
  if (s.loading()) runner_.restart();
  s("model", student_.net());
  trainer_.visit(s);
  for (const Weighted& t : terms_) s(t.row->key, *t.term);
  s("budget", budget_);
}

}  // namespace mtcki

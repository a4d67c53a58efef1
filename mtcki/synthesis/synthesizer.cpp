#include "mtcki/synthesis/synthesizer.h"

#include <algorithm>
#include <limits>

#include "mtcki/config/table_names.h"
#include "mtcki/synthesis/channel_exchange.h"
#include "tensor/context.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/keep_best.h"

namespace mtcki {

namespace {

constexpr double kNone = std::numeric_limits<float>::max();  // nothing was kept yet

SourceOptions source_options(const Synthesizer::Options& o, Teachers& teachers) {
  return {o.channels,    o.image_size, o.normalization, o.seed, o.compute.at(teachers.device()),
          o.num_classes, &teachers};
}

}  // namespace

Synthesizer::Synthesizer(Teachers& teachers, const SynthesisConfig& config, const Options& options)
    : teachers_(teachers),
      config_(config),
      options_(options),
      loss_(teachers, config, options.most_batches * config.batch_size, options.seed),
      source_(make_source(config, source_options(options, teachers))),
      runner_(options.compute.at(teachers.device()), "synthesis.batch_size", config.batch_size),
      best_score_(Tensor::full({}, kNone, DType::f32, teachers.device())),
      best_step_(Tensor::full({}, -1.0, DType::f32, teachers.device())) {
  rows();  // UsageError when the ranks do not divide the batch
}

Rng Synthesizer::rng(const char* stream, int64_t step) const {
  return {options_.seed, rng_stream(stream), static_cast<uint64_t>(step)};
}

Tensor Synthesizer::draw_labels() const {
  const int64_t n = config_.batch_size, k = options_.num_classes;
  const Rng r = rng("synthesis/labels", batch_);
  std::vector<int64_t> labels;
  if (config_.targets == Targets::balanced)
    for (int64_t c = 0; c < k; ++c) labels.insert(labels.end(), static_cast<size_t>(n / k), c);
  for (int64_t i = std::ssize(labels); i < n; ++i)
    labels.push_back(
        static_cast<int64_t>(r.below(static_cast<uint64_t>(k), static_cast<uint64_t>(i))));
  std::ranges::sort(labels);
  return Tensor::from(labels, {n});
}

std::vector<size_t> Synthesizer::draw_subset(int64_t step_in_batch) const {
  const auto count = std::ssize(teachers_);
  std::vector<size_t> subset;
  if (config_.teachers_per_step <= 0 || config_.teachers_per_step >= count || !loss_.ready()) {
    for (size_t m = 0; m < teachers_.size(); ++m) subset.push_back(m);
    return subset;
  }
  const Tensor drawn = sample_without_replacement(
      count, config_.teachers_per_step,
      rng("synthesis/teachers", batch_ * config_.g_steps + step_in_batch));
  for (const int64_t m : drawn.to_vector<int64_t>()) subset.push_back(static_cast<size_t>(m));
  std::ranges::sort(subset);
  return subset;
}

ViewParameters Synthesizer::views_at(int64_t step_in_batch) const {
  ViewParameters all = draw_views(config_.batch_size, options_.image_size, options_.image_size,
                                  config_.pad, config_.flip, config_.min_crop,
                                  rng("synthesis/views", batch_ * config_.g_steps + step_in_batch));
  const RowRange own = rows();
  for (Tensor* t : {&all.offset, &all.flip, &all.box, &all.local_flip})
    if (t->defined()) *t = t->slice(own.begin, own.end);
  if (config_.views == Views::roll)
    draw_roll({own.size(), options_.channels, options_.image_size, options_.image_size},
              config_.pad, config_.flip,
              rng("synthesis/roll", batch_ * config_.g_steps + step_in_batch), &all);
  return all;
}

RowRange Synthesizer::rows() const {
  return rows_of_rank(config_.batch_size, communicator(), "synthesis.batch_size");
}

void Synthesizer::begin() {
  labels_ = draw_labels();
  source_->set_labels(labels_);
  source_->begin_batch(batch_);
  best_score_.fill_(kNone);
  best_step_.fill_(-1.0);
  step_ = 0;
  under_way_ = true;
}

InversionLoss::Step Synthesizer::prepare(Student* student) {
  StepInputs& inputs = runner_.inputs();
  InversionLoss::Step s;
  s.labels = inputs.set("labels", labels_.slice(rows().begin, rows().end));
  const ViewParameters v = views_at(step_);
  s.views = {inputs.set("offset", v.offset),
             inputs.set("flip", v.flip),
             inputs.set("box", v.box),
             inputs.set("local_flip", v.local_flip),
             inputs.set("roll_rows", v.roll_rows),
             inputs.set("roll_columns", v.roll_columns)};
  s.asked = draw_subset(step_);
  s.student = loss_.needs_student() ? student : nullptr;
  loss_.draw(s, rng("synthesis/bank", global_step()), inputs);
  step_number_ = inputs.set("step", static_cast<double>(step_));
  return s;
}

std::string Synthesizer::variant(const InversionLoss::Step& s) const {
  const std::string name = loss_.variant(s);
  // Copies of a student's weights may be replaced when it trains between two batches.
  return name.empty() || !s.student ? name : str(name, " student ", batch_);
}

void Synthesizer::issue(const InversionLoss::Step& s) {
  source_->zero_grad();
  loss_.zero_grad();
  const Variable images = source_->images(rows());
  InversionLoss::Result r;
  {
    const StageScope scope("synthesis/teachers");
    r = loss_.evaluate(images, s, runner_.values());
  }
  runner_.values().put("loss", r.total.data());
  keep_best(r, images.data());
  const StageScope scope("synthesis/backward");
  r.total.backward();
  source_->update();
  loss_.update();
}

void Synthesizer::keep_best(const InversionLoss::Result& r, const Tensor& images) {
  if (!best_images_.defined()) best_images_ = Tensor::empty_like(images);
  best_images_ = best_images_.to(images.layout());  // one that was loaded
  const bool total = config_.best == Best::total || !r.selected.defined();
  const Tensor score = config_.best == Best::last ? neg(step_number_)
                       : total                    ? r.total.data()
                                                  : r.selected;
  std::vector<Tensor> from{images, step_number_}, to{best_images_, best_step_};
  const std::vector<Tensor>& maps = source_->maps();
  best_maps_.resize(maps.size());
  for (size_t i = 0; i < maps.size(); ++i) {
    from.push_back(maps[i].to(DType::f32));
    if (!best_maps_[i].defined()) best_maps_[i] = Tensor::empty_like(from.back());
    to.push_back(best_maps_[i] = best_maps_[i].to(from.back().layout()));
  }
  copy_if_less_(score, best_score_, from, to);
}

std::vector<Tensor> Synthesizer::best_maps() const {
  std::vector<Tensor> all;
  for (const Tensor& t : best_maps_) all.push_back(communicator().all_gather(t.plain()));
  return all;
}

// Some of the kept images become what the generator makes of two of them.
void Synthesizer::exchange(Batch* batch) {
  const std::vector<Tensor> maps = best_maps();
  const Rng r = rng("synthesis/exchange", batch_);
  const int64_t n = config_.batch_size;
  const auto level = static_cast<size_t>(r.below(maps.size(), 0));
  const Tensor& own = maps[level];
  const Tensor mask = draw_exchange(n, own.size(1), true, rng("synthesis/channels", batch_)),
               other = index_select(own, partners(n).to(own.device()));
  const Tensor mixed = unit_to_u8(source_
                                      ->decode(static_cast<int64_t>(level),
                                               exchange_channels(own, other, mask.to(own.device())))
                                      .plain(),
                                  config_.quant == Quant::round)
                           .to(Device::cpu());
  for (int64_t i = 0; i < n; ++i)
    if (r.uniform(static_cast<uint64_t>(i) + 1) < config_.exchange)
      batch->images.slice(i, i + 1).copy_(mixed.slice(i, i + 1));
}

Values Synthesizer::step(Student* student) {
  if (!under_way_) begin();
  const InversionLoss::Step s = prepare(student);
  asked_ = s.asked;
  try {
    values_ = runner_.run(global_step(), variant(s), [&] { issue(s); });
  } catch (const NumericError& e) {
    throw NumericError(str("synthesis, batch ", batch_, ", step ", step_, ": ", e.what()));
  }
  ++step_;
  ++budget_.generator_steps;
  budget_.forward_macs += loss_.macs(s, config_.batch_size);
  return batch_done() ? read() : values_;
}

Values Synthesizer::read() {
  try {
    return values_ = runner_.read();
  } catch (const NumericError& e) {
    throw NumericError(str("synthesis, batch ", batch_, ": ", e.what()));
  }
}

Tensor Synthesizer::best_so_far() const {
  if (!best_images_.defined() || best_step_.item() < 0) return {};
  return communicator().all_gather(
      unit_to_u8(best_images_.plain(), config_.quant == Quant::round).to(Device::cpu()));
}

std::string Synthesizer::asked() const {
  std::string names;
  for (const size_t m : asked_) names += (names.empty() ? "" : "+") + teachers_[m].name();
  return asked_.size() < teachers_.size() ? names : "";
}

Synthesizer::Batch Synthesizer::finish() {
  const auto best = static_cast<int64_t>(best_step_.item());
  if (!batch_done() || best < 0)
    throw NumericError(str("synthesis, batch ", batch_, ": no step had a finite loss"));
  source_->end_batch();
  loss_.finish_batch(best_images_, views_at(best).to(runner_.device()));
  Batch out{.images = best_so_far(), .labels = labels_, .select = best_score_.item()};
  if (source_keeps_maps(config_.source))
    for (const Tensor& t : best_maps()) out.maps.push_back(t.to(Device::cpu()));
  else if (config_.exchange > 0)
    exchange(&out);
  budget_.images += out.images.size(0);
  ++batch_;
  step_ = 0;
  under_way_ = false;
  return out;
}

void Synthesizer::visit(State& s) {
  if (s.loading()) runner_.restart();
  s("batch", batch_);
  s("step_in_batch", step_);
  s("under_way", under_way_);
  s("synthesis_budget", budget_);
  if (s.loading() && under_way_) {
    const int64_t step = step_;
    begin();  // draws the labels, makes what the source optimises
    step_ = step;
  }
  s.step(global_step());
  loss_.visit(s);
  s.within("source", [&](State& inner) { source_->visit(inner, under_way_); });
  if (under_way_) visit_best(s);
}

void Synthesizer::visit_best(State& s) {
  s("best_score", best_score_);
  s("best_step", best_step_);
  if (best_step_.item() < 0) return;
  // Rows of all ranks, whose number may be another one when they are loaded.
  Tensor all;
  if (!s.loading()) all = communicator().all_gather(best_images_.plain());
  s.optional("best_images", all, runner_.device());
  if (s.loading()) best_images_ = all.slice(rows().begin, rows().end).clone();
  if (config_.exchange == 0 && !source_keeps_maps(config_.source)) return;
  std::vector<Tensor> maps;
  if (!s.loading()) maps = best_maps();
  size_t count = maps.size();
  s("best_maps", count);
  maps.resize(count);
  for (size_t i = 0; i < count; ++i) s.optional(str("best_maps.", i), maps[i], runner_.device());
  if (!s.loading()) return;
  best_maps_.clear();
  for (const Tensor& t : maps) best_maps_.push_back(t.slice(rows().begin, rows().end).clone());
}

}  // namespace mtcki

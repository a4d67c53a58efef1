#include "mtcki/synthesis/synthesizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/functions.h"
#include "mtcki/training/batch_advice.h"
#include "mtcki/training/step_metrics.h"
#include "nn/parallel.h"
#include "optim/gradient_sync.h"
#include "tensor/context.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/keep_best.h"

namespace mtcki {

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();  // nothing was kept yet

std::unique_ptr<nn::Generator> make(const SynthesisConfig& c, const Synthesizer::Options& o) {
  nn::GeneratorSpec spec;
  spec.name = c.generator;
  spec.nz = c.nz;
  spec.ngf = c.ngf;
  spec.channels = o.channels;
  spec.image_size = o.image_size;
  nn::Init init(o.seed);
  init.rng.stream = rng_stream("synthesis/generator");
  return nn::make_generator(spec, init);
}

}  // namespace

Synthesizer::Synthesizer(Teachers& teachers, const SynthesisConfig& config, const Options& options)
    : teachers_(teachers),
      config_(config),
      options_(options),
      loss_(teachers, config, options.most_batches * config.batch_size, options.seed),
      generator_(make(config, options)),
      cls_(config.cls),
      adv_(config.adv),
      inputs_(teachers.device()),
      ring_(step_metrics(options.compute.at(teachers.device()))),
      graph_(options.compute.graph && ring_.is_deferred()) {
  const Device device = teachers.device();
  generator_->to(device);
  generator_->set_precision(options.compute.precision);
  rows();  // UsageError when the ranks do not divide the batch
  nn::make_parallel(*generator_, communicator());
  if (!ring_.is_deferred()) return;
  device_select_ = Tensor::full({}, kNone, DType::f32, device);
  device_step_ = Tensor::full({}, -1.0, DType::f32, device);
}

Rng Synthesizer::rng(const char* stream, int64_t step) const {
  return {options_.seed, rng_stream(stream), static_cast<uint64_t>(step)};
}

Tensor Synthesizer::draw_labels() const {
  const int64_t n = config_.batch_size, k = options_.num_classes;
  const Rng r = rng("synthesis/labels", batch_);
  std::vector<int64_t> labels;
  if (config_.targets == "balanced")
    for (int64_t c = 0; c < k; ++c) labels.insert(labels.end(), static_cast<size_t>(n / k), c);
  for (int64_t i = static_cast<int64_t>(labels.size()); i < n; ++i)
    labels.push_back(
        static_cast<int64_t>(r.below(static_cast<uint64_t>(k), static_cast<uint64_t>(i))));
  std::sort(labels.begin(), labels.end());
  return Tensor::from(labels, {n});
}

std::vector<size_t> Synthesizer::draw_subset(int64_t step_in_batch) const {
  const auto count = static_cast<int64_t>(teachers_.size());
  // The first losses of all teachers are needed once for bn_reduce = init.
  if (config_.teachers_per_step <= 0 || config_.teachers_per_step >= count || !loss_.ready())
    return {};
  const Tensor drawn = sample_without_replacement(
      count, config_.teachers_per_step,
      rng("synthesis/teachers", batch_ * config_.g_steps + step_in_batch));
  std::vector<size_t> subset;
  for (const int64_t m : drawn.to_vector<int64_t>()) subset.push_back(static_cast<size_t>(m));
  std::sort(subset.begin(), subset.end());
  return subset;
}

ViewParameters Synthesizer::views_at(int64_t step_in_batch) const {
  ViewParameters all = draw_views(config_.batch_size, options_.image_size, options_.image_size,
                                  config_.pad, config_.flip, config_.min_crop,
                                  rng("synthesis/views", batch_ * config_.g_steps + step_in_batch));
  const RowRange own = rows();
  for (Tensor* t : {&all.offset, &all.flip, &all.box, &all.local_flip})
    if (t->defined()) *t = t->slice(own.begin, own.end);
  return all;
}

RowRange Synthesizer::rows() const {
  return rows_of_rank(config_.batch_size, communicator(), "synthesis.batch_size");
}

void Synthesizer::make_optimizer() {
  optim::ParameterGroup generator, latents;
  for (auto& [name, p] : generator_->named_parameters())
    generator.parameters.emplace_back("g." + name, *p);
  latents.parameters.emplace_back("z", latents_);
  latents.lr_scale = config_.lr_z > 0 ? config_.lr_z / config_.lr_g : 1.0;
  optim::AdamOptions adam;
  adam.beta1 = 0.5;
  adam.beta2 = 0.999;
  optimizer_ = optim::make_adam({generator, latents}, adam);
}

// Latents and optimiser stay where they are from batch to batch: captured steps know them.
void Synthesizer::begin() {
  if (batch_ == 0 || (config_.g_life > 0 && batch_ % config_.g_life == 0))
    generator_->reset(rng("synthesis/reset", batch_));
  generator_->train();
  const Tensor z = randn({config_.batch_size, config_.nz}, rng("synthesis/latents", batch_));
  if (latents_.defined()) {
    Tensor(latents_.data()).copy_(z);
    optimizer_->reset();
  } else {
    latents_ = Variable(z.to(inputs_.device()), true);
    make_optimizer();
  }
  optimizer_->set_lr(config_.lr_g);
  labels_ = draw_labels();
  if (ring_.is_deferred()) {
    ring_.drop();
    device_select_.fill_(kNone);
    device_step_.fill_(-1.0);
  } else {
    best_images_ = {};
    best_local_.clear();
    best_global_.clear();
  }
  best_step_ = -1;
  step_ = 0;
  asked_.clear();
  under_way_ = true;
}

InversionLoss::Step Synthesizer::prepare(Student* student) {
  InversionLoss::Step s;
  s.labels = inputs_.set("labels", labels_.slice(rows().begin, rows().end));
  const ViewParameters v = views_at(step_);
  s.views = {inputs_.set("offset", v.offset), inputs_.set("flip", v.flip),
             inputs_.set("box", v.box), inputs_.set("local_flip", v.local_flip)};
  s.subset = draw_subset(step_);
  if (contrast()) {
    s.bank_index = contrast()->draw_indices(s.subset, rng("synthesis/bank", global_step()));
    for (size_t h = 0; h < s.bank_index.size(); ++h)
      s.bank_index[h] = inputs_.set(str("bank ", h), s.bank_index[h]);
  }
  s.student = student;
  s.cls = cls_;
  s.adv = student ? adv_ : 0.0;
  if (!ring_.is_deferred()) return s;
  s.ring = &ring_;
  step_number_ = inputs_.set("step", static_cast<double>(step_));
  return s;
}

std::set<size_t> Synthesizer::asked_by(const InversionLoss::Step& s) const {
  std::set<size_t> asked(s.subset.begin(), s.subset.end());
  if (asked.empty())
    for (size_t m = 0; m < teachers_.size(); ++m) asked.insert(m);
  return asked;
}

// What decides which ops a step issues, and on which memory; empty: not to be captured.
std::string Synthesizer::structure(const InversionLoss::Step& s) const {
  if (!loss_.ready()) return "";  // it reads the first losses of the teachers
  std::string key = str("cls ", s.cls, " adv ", s.adv);
  for (const size_t m : asked_by(s)) key += str(" t", m, loss_.bn().blends(m) ? " blended" : "");
  for (const Tensor& index : s.bank_index)
    key += index.defined() ? str(" past ", index.size(0)) : " none";
  // Copies of a student's weights may be replaced when it trains between two batches.
  if (s.adv > 0) key += str(" student ", batch_);
  return key;
}

InversionLoss::Result Synthesizer::forward(const InversionLoss::Step& s, Variable* images) {
  optimizer_->zero_grad();
  if (contrast()) contrast()->zero_grad();
  {
    const StageScope scope("synthesis/generator");
    const RowRange own = rows();
    *images = (*generator_)(
        own.size() == config_.batch_size ? latents_ : narrow(latents_, 0, own.begin, own.end));
  }
  const StageScope scope("synthesis/teachers");
  return loss_.evaluate(*images, s);
}

void Synthesizer::backward(const InversionLoss::Result& r) {
  const StageScope scope("synthesis/backward");
  r.total.backward();
  std::vector<Variable> trained = generator_->parameters();
  trained.push_back(latents_);
  optim::all_reduce_gradients(trained, communicator());
  optimizer_->step();
  if (contrast()) contrast()->step();
}

Values Synthesizer::checked_step(const InversionLoss::Step& s) {
  Variable images;
  const InversionLoss::Result r = forward(s, &images);
  const bool total = config_.best == "total" || !r.selected.defined();
  const double score = config_.best == "last" ? static_cast<double>(-step_)
                       : total                ? r.value
                                              : r.select;
  if (best_step_ < 0 || score < best_select_) {
    best_images_ = images.data();
    best_local_ = r.phi_local;
    best_global_ = r.phi_global;
    best_select_ = score;
    best_step_ = step_;
  }
  backward(r);
  Values values(r.terms.begin(), r.terms.end());
  values.emplace_back("loss", r.value);
  return values;
}

void Synthesizer::deferred_step(const InversionLoss::Step& s) {
  Variable images;
  const InversionLoss::Result r = forward(s, &images);
  ring_.put("loss", r.total.data());
  keep_best(r, images.data());
  backward(r);
}

void Synthesizer::keep_best(const InversionLoss::Result& r, const Tensor& images) {
  std::vector<Tensor> from{images, step_number_}, to;
  const auto buffer = [&](Tensor& kept, const Tensor& like) {
    if (!kept.defined()) kept = Tensor::empty_like(like);
    kept = kept.to(like.layout());  // one that was loaded
    to.push_back(kept);
  };
  buffer(best_images_, images);
  to.push_back(device_step_);
  best_local_.resize(r.phi_local.size());
  best_global_.resize(r.phi_global.size());
  for (size_t h = 0; h < r.phi_local.size(); ++h) {
    if (!r.phi_local[h].defined()) continue;
    from.insert(from.end(), {r.phi_local[h], r.phi_global[h]});
    buffer(best_local_[h], r.phi_local[h]);
    buffer(best_global_[h], r.phi_global[h]);
  }
  const bool total = config_.best == "total" || !r.selected.defined();
  const Tensor score = config_.best == "last" ? neg(step_number_)
                       : total                ? r.total.data()
                                              : r.selected;
  copy_if_less_(score, device_select_, from, to);
}

Values Synthesizer::step(Student* student) {
  if (!under_way_) begin();
  const InversionLoss::Step s = prepare(student);
  values_.clear();
  try {
    if (ring_.is_deferred()) {
      graph_.run(structure(s), [&] { deferred_step(s); });
      ring_.commit(global_step());
    } else {
      values_ = checked_step(s);
    }
    asked_.merge(asked_by(s));
    ++step_;
    ++budget_.generator_steps;
    budget_.forward_macs += loss_.macs(s, config_.batch_size);
    if (ring_.full() || (ring_.is_deferred() && batch_done())) values_ = ring_.read();
  } catch (const NumericError& e) {
    throw_numeric(e);
  } catch (const OutOfMemoryError& e) {
    graph_.clear();
    throw_with_batch_advice(e, inputs_.device(), "synthesis.batch_size", config_.batch_size,
                            [&](int64_t n) { probe(s, n); });
  }
  return values_;
}

// A step on n samples.
void Synthesizer::probe(InversionLoss::Step s, int64_t n) {
  const Device device = inputs_.device();
  s.labels = Tensor::zeros({n}, DType::i64, device);
  s.views = draw_views(n, options_.image_size, options_.image_size, config_.pad, config_.flip,
                       config_.min_crop, Rng{})
                .to(device);
  s.ring = nullptr;
  optimizer_->zero_grad();
  if (contrast()) contrast()->zero_grad();
  const Variable z(Tensor::zeros({n, config_.nz}, DType::f32, device), true);
  loss_.evaluate((*generator_)(z), s).total.backward();
  optimizer_->step();
}

Values Synthesizer::read() {
  if (ring_.is_deferred()) {
    try {
      values_ = ring_.read();
    } catch (const NumericError& e) {
      throw_numeric(e);
    }
  }
  return values_;
}

void Synthesizer::throw_numeric(const NumericError& e) const {
  throw NumericError(str("synthesis, batch ", batch_, ", step ", step_, ": ", e.what()));
}

Synthesizer::Best Synthesizer::best() const {
  Best b{best_step_, best_select_, best_local_, best_global_};
  if (!ring_.is_deferred()) return b;
  b.step = static_cast<int64_t>(device_step_.item());
  b.select = device_select_.item();
  // Buffers of heads that the best step did not ask are of another step.
  for (size_t h = 0; b.step >= 0 && h < b.local.size(); ++h)
    if (!loss_.contrast()->asked(h, draw_subset(b.step))) b.local[h] = b.global[h] = {};
  return b;
}

Synthesizer::Batch Synthesizer::finish() {
  Best kept = best();
  if (!batch_done() || kept.step < 0)
    throw NumericError(str("synthesis, batch ", batch_, ": no step had a finite loss"));
  if (contrast())
    loss_.complete_features(best_images_, views_at(kept.step).to(inputs_.device()), kept.local,
                            kept.global);
  Batch out;
  out.images = communicator().all_gather(
      unit_to_u8(best_images_.plain(), config_.quant == "round").to(Device::cpu()));
  out.labels = labels_;
  out.select = kept.select;
  if (contrast()) contrast()->add(kept.local, kept.global);
  for (const Tensor& t : kept.local) out.phi_local.push_back(t.to(Device::cpu()));
  for (const Tensor& t : kept.global) out.phi_global.push_back(t.to(Device::cpu()));
  loss_.bn().finish_batch(asked_);
  budget_.images += out.images.size(0);
  ++batch_;
  step_ = 0;
  under_way_ = false;
  if (!ring_.is_deferred()) best_images_ = {}, best_local_.clear(), best_global_.clear();
  return out;
}

}  // namespace mtcki

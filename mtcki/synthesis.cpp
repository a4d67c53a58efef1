#include "mtcki/synthesis.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "mtcki/state_util.h"
#include "tensor/context.h"
#include "tensor/ops/cast.h"

namespace mtcki {

namespace {

constexpr int64_t kMostSkips = 20, kMostAttempts = 3;

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
      adv_(config.adv) {}

Rng Synthesizer::rng(const char* stream, int64_t step) const {
  // Attempts after a rollback draw anew.
  return {options_.seed + static_cast<uint64_t>(attempt_) * 0x9e3779b97f4a7c15ull,
          rng_stream(stream), static_cast<uint64_t>(step)};
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

std::vector<size_t> Synthesizer::draw_subset() const {
  const auto count = static_cast<int64_t>(teachers_.size());
  // The first losses of all teachers are needed once for bn_reduce = init.
  if (config_.teachers_per_step <= 0 || config_.teachers_per_step >= count || !loss_.ready())
    return {};
  const Tensor drawn = sample_without_replacement(count, config_.teachers_per_step,
                                                  rng("synthesis/teachers", global_step()));
  std::vector<size_t> subset;
  for (const int64_t m : drawn.to_vector<int64_t>()) subset.push_back(static_cast<size_t>(m));
  std::sort(subset.begin(), subset.end());
  return subset;
}

ViewParameters Synthesizer::views_at(int64_t step_in_batch) const {
  return draw_views(config_.batch_size, options_.image_size, options_.image_size, config_.pad,
                    config_.flip, config_.min_crop,
                    rng("synthesis/views", batch_ * config_.g_steps + step_in_batch));
}

void Synthesizer::make_optimizer() {
  optim::ParameterGroup generator, latents;
  for (auto& [name, p] : generator_->named_parameters())
    generator.parameters.emplace_back("g." + name, *p);
  latents.parameters.emplace_back("z", latents_);
  latents.lr_scale = config_.lr_z > 0 ? config_.lr_z / config_.lr_g : 1.0;
  optim::AdamOptions adam;
  adam.lr = config_.lr_g * std::pow(0.5, static_cast<double>(attempt_));
  adam.beta1 = 0.5;
  adam.beta2 = 0.999;
  optimizer_ = optim::make_adam({generator, latents}, adam);
}

void Synthesizer::begin() {
  if (batch_ == 0 || attempt_ > 0 || (config_.g_life > 0 && batch_ % config_.g_life == 0))
    generator_->reset(rng("synthesis/reset", batch_));
  generator_->train();
  latents_ =
      Variable(randn({config_.batch_size, config_.nz}, rng("synthesis/latents", batch_)), true);
  labels_ = draw_labels();
  make_optimizer();
  best_images_ = {};
  best_local_.clear();
  best_global_.clear();
  best_step_ = -1;
  skips_ = 0;
  step_ = 0;
  under_way_ = true;
}

Values Synthesizer::step(Student* student) {
  if (!under_way_) begin();
  InversionLoss::Step s;
  s.labels = labels_;
  s.views = views_at(step_);
  s.bank = rng("synthesis/bank", global_step());
  s.subset = draw_subset();
  s.student = student;
  s.cls = cls_;
  s.adv = student ? adv_ : 0.0;

  optimizer_->zero_grad();
  if (contrast()) contrast()->zero_grad();
  try {
    Variable images;
    {
      const StageScope scope("synthesis/generator");
      images = (*generator_)(latents_);
    }
    InversionLoss::Result r;
    {
      const StageScope scope("synthesis/teachers");
      r = loss_.evaluate(images, s);
    }
    const double score = config_.best == "total" ? r.value : r.select;
    if (best_step_ < 0 || score < best_select_) {
      best_images_ = images.data();
      best_local_ = r.phi_local;
      best_global_ = r.phi_global;
      best_select_ = score;
      best_step_ = step_;
    }
    {
      const StageScope scope("synthesis/backward");
      r.total.backward();
      optimizer_->step();
      if (contrast()) contrast()->step();
    }
    skips_ = 0;
    ++step_;
    ++budget_.generator_steps;
    budget_.forward_macs += r.macs;
    Values values(r.terms.begin(), r.terms.end());
    values.emplace_back("loss", r.value);
    return values;
  } catch (const NumericError& e) {
    const std::string where = str("synthesis, batch ", batch_, ", step ", step_, ": ", e.what());
    if (options_.on_nan == "skip" && ++skips_ <= kMostSkips) {
      ++step_;
      return {};
    }
    if (options_.on_nan == "rollback" && attempt_ < kMostAttempts) {
      ++attempt_;  // this batch again, other draws, half the learning rate
      begin();
      return {};
    }
    throw NumericError(where);
  }
}

Synthesizer::Batch Synthesizer::finish() {
  if (!batch_done() || best_step_ < 0)
    throw NumericError(str("synthesis, batch ", batch_, ": no step had a finite loss"));
  if (contrast())
    loss_.complete_features(best_images_, views_at(best_step_), best_local_, best_global_);
  Batch out;
  out.images = unit_to_u8(best_images_.plain(), config_.quant == "round");
  out.labels = labels_;
  out.select = best_select_;
  out.phi_local = best_local_;
  out.phi_global = best_global_;
  if (contrast()) contrast()->add(best_local_, best_global_);
  loss_.bn().finish_batch();
  budget_.images += out.images.size(0);
  ++batch_;
  step_ = 0;
  attempt_ = 0;
  under_way_ = false;
  optimizer_.reset();
  latents_ = {};
  best_images_ = {};
  best_local_.clear();
  best_global_.clear();
  return out;
}

void Synthesizer::save(StageState& state) const {
  state.step = global_step();
  state.meta["batch"] = batch_;
  state.meta["step_in_batch"] = step_;
  state.meta["attempt"] = attempt_;
  state.meta["skips"] = skips_;
  state.meta["synthesis_budget"] = budget_.to_json();
  state.put(loss_.bn().state_dict(), "bn.");
  if (loss_.contrast()) state.put(loss_.contrast()->state_dict(), "contrast.");
  if (config_.g_life != 1 || under_way_) state.put(generator_->state_dict(), "generator.");
  state.meta["under_way"] = under_way_;
  if (!under_way_) return;
  state.put({{"z", latents_.data().clone()}}, "latents.");
  state.put(optimizer_->state_dict(), "adam.");
  state.meta["best_step"] = best_step_;
  if (best_step_ < 0) return;
  state.meta["best_select"] = best_select_;
  nn::StateDict best{{"images", best_images_.plain()}};
  for (size_t h = 0; h < best_local_.size(); ++h) {
    if (!best_local_[h].defined()) continue;
    best.emplace_back(str("phi_local.", h), best_local_[h]);
    best.emplace_back(str("phi_global.", h), best_global_[h]);
  }
  state.put(best, "best.");
}

void Synthesizer::load(const StageState& state) {
  batch_ = state.meta.at("batch");
  attempt_ = state.meta.at("attempt");
  budget_ = Budget::from_json(state.meta.at("synthesis_budget"));
  loss_.bn().load_state_dict(state.take("bn."));
  if (contrast()) contrast()->load_state_dict(state.take("contrast."));
  under_way_ = false;
  if (state.meta.at("under_way").get<bool>()) begin();  // draws labels, makes the optimiser
  step_ = state.meta.at("step_in_batch");
  skips_ = state.meta.at("skips");
  const nn::StateDict weights = state.take("generator.");
  if (!weights.empty()) generator_->load_state_dict(weights);
  if (!under_way_) return;
  const Tensor z = entry(state.take("latents."), "z");
  if (!z.defined() || z.shape() != latents_.shape())
    throw DataError("synthesis state: latents are missing or of another shape");
  latents_.set_data(z.clone());
  optimizer_->load_state_dict(state.take("adam."));
  best_step_ = state.meta.at("best_step");
  if (best_step_ < 0) return;
  best_select_ = state.meta.at("best_select");
  const nn::StateDict best = state.take("best.");
  best_images_ = entry(best, "images").clone();
  if (!contrast()) return;
  best_local_.resize(contrast()->heads());
  best_global_.resize(contrast()->heads());
  for (size_t h = 0; h < best_local_.size(); ++h) {
    best_local_[h] = entry(best, str("phi_local.", h));
    best_global_[h] = entry(best, str("phi_global.", h));
  }
}

}  // namespace mtcki

// Which settings of [synthesis], [rounds] and [distill] cannot go together.
#include <fmt/format.h>

#include <algorithm>

#include "mtcki/config/keys.h"
#include "mtcki/config/table_names.h"
#include "tensor/error.h"

namespace mtcki::config_keys {

namespace {

void validate_sgd(const std::string& table, const SgdConfig& c) {
  if (c.nesterov && c.momentum == 0.0)
    throw UsageError(table + ".nesterov: needs " + table + ".momentum > 0");
  if (c.min_lr > c.lr) throw UsageError(table + ".min_lr: is above " + table + ".lr");
  if (c.schedule == "multistep" && c.milestones.empty())
    throw UsageError(fmt::format("{0}.schedule: multistep needs {0}.milestones", table));
  if (c.schedule != "multistep" && !c.milestones.empty())
    throw UsageError(fmt::format("{0}.milestones: only {0}.schedule=multistep reads them", table));
  if (std::ranges::adjacent_find(c.milestones, std::greater_equal<>()) != c.milestones.end())
    throw UsageError(table + ".milestones: must increase");
}

// What goes with some sources only, and with what a student is shown of them.
void validate_source(const RunConfig& c) {
  const SynthesisConfig& s = c.synthesis;
  if (s.g_life_first > 0 && s.source != "generator" && s.source != "noisy")
    throw UsageError("synthesis.g_life_first: synthesis.source = \"" + s.source +
                     "\" has no generator that begins anew; set it to 0");
  if (s.save_logits && is_given(s.source))
    throw UsageError("synthesis.save_logits: synthesis.source = \"" + s.source +
                     "\" asks no teachers; set it to false");
  if (s.reset_first > 0 && s.source != "meta_generator")
    throw UsageError("synthesis.reset_first: only synthesis.source = \"meta_generator\" reads it");
  if (!s.clip && s.source != "pixels")
    throw UsageError("synthesis.clip: only synthesis.source = \"pixels\" has pixels to clip");
  const bool keeps_maps = source_keeps_maps(s.source);
  if (keeps_maps != (c.distill.replay == "maps"))
    throw UsageError(
        "synthesis.source maps and distill.replay maps go together: the one keeps what the other "
        "shows");
  if (keeps_maps && s.batches > 0)
    throw UsageError("synthesis.batches: maps are kept in a student's rounds only; set it to 0");
  if (s.exchange > 0 && s.source != "generator" && !keeps_maps)
    throw UsageError(fmt::format(
        "synthesis.exchange: synthesis.source {} has no maps whose channels could be exchanged",
        s.source));
  if (s.exchange > 0 && c.distill.fuse == Fuse::conf)
    throw UsageError(
        "distill.fuse: conf needs labels, and images with exchanged channels have none; use "
        "another");
  if (s.g_ema > 0 && !source_samples(s.source))
    throw UsageError(fmt::format(
        "synthesis.g_ema: images of source {} are those of its best step, not of averaged weights",
        s.source));
  if (s.cls_focus > 0 && s.cls_mode != ClsMode::ens)
    throw UsageError("synthesis.cls_focus: only synthesis.cls_mode = \"ens\" reads it");
  if (s.loss.at("adv_heads") > 0 && c.distill.loss.at("heads") == 0)
    throw UsageError("synthesis.adv_heads: the student has heads with distill.heads > 0 only");
}

void validate_synthesis(const RunConfig& c) {
  const SynthesisConfig& s = c.synthesis;
  double all = 0, without_student = 0;
  for (const LossTermRow& row : inversion_terms()) {
    const double weight = s.loss.at(row.key);
    all += weight;
    if (!row.needs_student) without_student += weight;
    if (row.needs_student && weight > 0 && c.rounds.per_epoch == 0)
      throw UsageError(fmt::format(
          "synthesis.{}: there is no student while the set is made; set rounds.per_epoch",
          row.key));
  }
  if (all <= 0) throw UsageError("synthesis: every loss weight is 0; nothing would be learned");
  if (s.batches > 0 && without_student <= 0)
    throw UsageError(
        "synthesis.batches: every loss needs a student, and there is none before the rounds; set "
        "it to 0");
  if (is_given(s.source) && c.rounds.per_epoch > 0)
    throw UsageError(fmt::format(
        "rounds.per_epoch: continues a synthesis, and synthesis.source {} has none", s.source));
  if ((s.source == "sets") == s.from.empty())
    throw UsageError("synthesis.from: goes with synthesis.source sets, and only with that");
  const bool shannon = s.adv_mode == AdvMode::js || s.adv_mode == AdvMode::adi;
  if (s.adv_temperature != 1 && shannon && s.loss.at("adv") > 0)
    throw UsageError(
        "synthesis.adv_temperature: adv_mode js and adi have a temperature of their own, 3");
  if (s.bank_draw > s.bank_size)
    throw UsageError(
        fmt::format("synthesis.bank_draw: {} rows from a bank of {}", s.bank_draw, s.bank_size));
  if (s.teachers_per_step > std::ssize(c.teachers))
    throw UsageError(fmt::format("synthesis.teachers_per_step: {} of {} teachers",
                                 s.teachers_per_step, c.teachers.size()));
  if (s.teachers_per_step > 0 && s.loss.at("cr") > 0 && s.cr_mode == CrMode::cat &&
      s.teachers_per_step < std::ssize(c.teachers))
    throw UsageError(
        "synthesis.teachers_per_step asks a subset of the teachers, but cr_mode = \"cat\" needs "
        "all of them; set synthesis.cr_mode to \"each\" or \"first\"");
}

void validate_rounds(const RunConfig& c) {
  const DistillConfig& d = c.distill;
  const SynthesisConfig& s = c.synthesis;
  const int64_t rounds = c.rounds.per_epoch;
  if (rounds > 0 && c.students.empty()) throw UsageError("rounds.per_epoch: needs a student");
  if (rounds > 0 && (d.steps_per_epoch == 0 || d.steps_per_epoch % rounds != 0))
    throw UsageError(
        "distill.steps_per_epoch: rounds.per_epoch shares it out, so it must be a multiple of "
        "that");
  if (c.synthesis.batches == 0 && rounds == 0)
    throw UsageError(
        "synthesis.batches: with 0 no images are made before the students, so rounds.per_epoch "
        "must make them");
  if (c.rounds.weight_step > 0 && (rounds == 0 || d.replay != "pool" || s.exchange > 0))
    throw UsageError(
        "rounds.weight_step: teachers' weights are learnt in rounds (rounds.per_epoch) from images "
        "with labels (distill.replay pool, synthesis.exchange 0)");
  if (d.replay == "maps" && d.fuse == Fuse::conf)
    throw UsageError("distill.fuse: conf needs labels, and images of maps have none; use another");
  if (d.replay != "fresh") return;
  if (rounds == 0)
    throw UsageError("distill.replay: fresh images need rounds.per_epoch, which makes them");
  if (!source_samples(c.synthesis.source))
    throw UsageError("distill.replay: no fresh images can be drawn from synthesis.source = \"" +
                     c.synthesis.source + "\"; use replay \"pool\"");
  if (d.fuse == Fuse::conf)
    throw UsageError(
        "distill.fuse: conf needs labels, and fresh images have none; use another, or replay "
        "\"pool\"");
}

void validate_distill(const RunConfig& c) {
  const DistillConfig& d = c.distill;
  if (d.views > 0 && c.rounds.per_epoch > 0)
    throw UsageError(
        "distill.views: the set grows with rounds.per_epoch, so the teachers' outputs cannot be "
        "kept; set one of them to 0");
  if (!std::ranges::any_of(student_terms(),
                           [&](const StudentTermRow& r) { return d.loss.at(r.key) > 0; }))
    throw UsageError("distill: every loss weight is 0; nothing would be learned");
  const bool maps = d.loss.at("cam") > 0 || d.loss.at("grad_cam") > 0;
  if (maps && (d.views > 0 || d.teacher_bn == TeacherBn::batch))
    throw UsageError(
        "distill.cam, distill.grad_cam: compare maps of the images of a step; they need "
        "distill.views = 0 and distill.teacher_bn = \"running\"");
  if (d.priority > 0 && d.replay != "pool")
    throw UsageError("distill.priority: only replay \"pool\" keeps images and their losses");
  if (d.mix != data::Mix::none && d.replay != "pool")
    throw UsageError("distill.mix: only replay \"pool\" mixes images; use none");
  if (d.agree > 0 && (d.loss.at("kd") == 0 || c.teachers.size() < 2))
    throw UsageError("distill.agree: needs several teachers, and distill.kd");
  if (d.fuse == Fuse::prob && d.loss.at("l1") > 0)
    throw UsageError(
        "distill.l1: compares logits, and fuse = \"prob\" has probabilities only; use another");
  if (d.views > 1 && d.pad == 0 && !d.flip && d.mix == data::Mix::none)
    throw UsageError(
        "distill.views: without distill.pad, distill.flip and distill.mix all views of an image "
        "are the same; set it to 1");
}

}  // namespace

void validate_method(const RunConfig& c) {
  validate_sgd("train", c.train);
  validate_sgd("distill", c.distill);
  validate_synthesis(c);
  validate_source(c);
  validate_rounds(c);
  validate_distill(c);
}

}  // namespace mtcki::config_keys

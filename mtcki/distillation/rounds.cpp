#include "mtcki/distillation/rounds.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "mtcki/training/batch_source.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

// The set of stage A and this student's own batches, joined in memory.
data::ImageSet joined(const data::ImageSet& base, const ImagePool& more) {
  if (more.size() == 0) return base;
  const data::ImageSet extra = more.load();
  data::ImageSet all = base;
  all.images = cat(std::vector<Tensor>{base.images, extra.images});
  all.labels = cat(std::vector<Tensor>{base.labels, extra.labels});
  return all;
}

}  // namespace

AdversarialResult adversarial_rounds(const AdversarialJob& job, Teachers& teachers,
                                     Student& student, const data::ImageSet& test, RunLog& log) {
  const int64_t kd = job.config.kd_steps, rounds = job.config.rounds;
  // A round is g_steps of synthesis, then kd of distillation; both count as steps of the stage, so
  // that it can stop and resume anywhere.
  const int64_t g = job.synthesis.g_steps, per_round = g + kd;
  const int64_t batches_before = job.synthesis.batches;
  const data::ImageSet& base = job.stage_a;
  ImagePool pool(job.distill.dir + "/synth", job.info);
  const std::string bank_dir = job.distill.dir + "/bank";
  BankShards stage_a_bank(job.stage_a_bank_dir, job.stage_a_dir, job.synthesis.batch_size, 0);
  BankShards bank(bank_dir, job.distill.dir, job.synthesis.batch_size, rounds);

  SynthesisConfig config = job.synthesis;
  config.loss["cls"] = job.config.cls;
  config.loss["adv"] = job.config.adv;
  Synthesizer synthesizer(teachers, config, job.options);
  const auto continue_stage_a = [&] {
    const auto state = CheckpointStore(job.stage_a_dir + "/final", job.stage_a_sha256).load();
    if (!state)
      throw UsageError(
          str(job.stage_a_dir, ": no finished synthesis to continue; run `mtcki invert`"));
    load(synthesizer, *state);
    stage_a_bank.set_checksums(state->meta.at("bank"));
    if (synthesizer.contrast()) stage_a_bank.restore(*synthesizer.contrast(), batches_before);
  };
  continue_stage_a();
  const Budget spent_before = synthesizer.budget();

  Distiller distiller(teachers, student, job.distill.config, rounds * kd, job.distill.seed,
                      job.distill.compute);
  const uint64_t seed = job.distill.seed ^ rng_stream(job.distill.stage.c_str());
  data::ImageSet set;
  std::optional<BatchSource> source;
  int64_t set_round = -1;
  // The pool of a round, and an order of it that depends on the round alone.
  const auto open_round = [&](int64_t round) {
    if (set_round == round) return;
    distiller.forget_graphs();
    source.reset();
    set = joined(base, pool);
    const uint64_t own = seed + static_cast<uint64_t>(round + 1) * 0x9e3779b97f4a7c15ull;
    source.emplace(set, pool_loader(job.distill.config, job.distill.loader_threads, own),
                   student.device());
    set_round = round;
  };

  FitJob fit_job = student_fit_job(job.distill, student, distiller, test);
  fit_job.total_steps = rounds * per_round;
  fit_job.steps_per_epoch = per_round;
  bool synthesising = false;  // in the last step
  fit_job.step = [&](int64_t step) -> Values {
    const int64_t round = step / per_round, within = step % per_round;
    synthesising = within < g;
    if (synthesising) {
      const Values values = synthesizer.step(&student);
      if (synthesizer.batch_done())
        store_batch(synthesizer.finish(), round, teachers, synthesizer, pool, bank);
      return values;
    }
    open_round(round);
    return distiller.step(*source, within - g, round * kd + within - g);
  };
  if (distiller.is_deferred())
    fit_job.read = [&] { return synthesising ? synthesizer.read() : distiller.read(); };
  fit_job.state = [&](State& state) {
    distiller.visit(state);
    state("synthesis", synthesizer);
    uint32_t shards = state.loading() ? 0 : pool.digest(synthesizer.batch() - batches_before);
    nlohmann::json rows = bank.checksums();
    state("pool", shards);
    state("bank", rows);
    if (!state.loading()) return;
    const int64_t own = synthesizer.batch() - batches_before;
    pool.require(own, shards);
    pool.truncate(own);
    bank.set_checksums(rows);
    set_round = -1;
    if (!synthesizer.contrast()) return;
    // The ring: rows of stage A, then this stage's.
    stage_a_bank.restore(*synthesizer.contrast(), batches_before);
    bank.replay(*synthesizer.contrast(), own);
  };
  const FitResult result = fit(fit_job, log);
  Budget budget = synthesizer.budget();
  budget.images -= spent_before.images;
  budget.generator_steps -= spent_before.generator_steps;
  budget.forward_macs -= spent_before.forward_macs;
  budget += distiller.budget();
  return {result, budget, pool.size()};
}

}  // namespace mtcki

#include "mtcki/synthesis/stage.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "mtcki/log/chance_watch.h"
#include "mtcki/log/stage_profiles.h"
#include "mtcki/log/step_clock.h"
#include "mtcki/training/stage_control.h"
#include "nn/state_dict.h"
#include "tensor/comm.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

constexpr char kStage[] = "synthesis";
constexpr double kLongestUnsavedSeconds = 60;  // a long batch is also saved in its middle
constexpr int64_t kGrid = 64;                  // images of a sample picture
constexpr int64_t kPictures = 10;              // of a stage, about

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int64_t kFilmRows = 8, kFilmFrames = 8;  // of the report's film of a batch

// `count` of the images, evenly spaced, so that a sorted batch shows all of its classes.
Tensor every_kth(const Tensor& images, int64_t count) {
  const int64_t n = images.size(0), shown = std::min(count, n);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < shown; ++i) rows.push_back(i * n / shown);
  return index_select(images, Tensor::from(rows, {shown}));
}

// Whether the film has a frame after this step (1-based) of g_steps: about evenly in the logarithm,
// the first and the last step among them.
bool is_frame(int64_t step, int64_t g_steps) {
  for (int64_t i = 0; i < kFilmFrames; ++i)
    if (step == std::llround(std::pow(static_cast<double>(g_steps),
                                      static_cast<double>(i) / (kFilmFrames - 1))))
      return true;
  return false;
}

// Losses of a step that asked some of the teachers are those of these teachers:
// "class_prior@resnet8", "history_contrast@resnet8.chance".
Values named_by_teacher(Values values, const std::string& asked) {
  if (asked.empty()) return values;
  for (auto& [name, value] : values) {
    const size_t end = name.ends_with(kChanceSuffix)
                           ? name.size() - std::string_view(kChanceSuffix).size()
                           : name.size();
    name.insert(end, "@" + asked);
  }
  return values;
}

int64_t log_interval(const SynthesisConfig& c) { return std::max<int64_t>(1, c.g_steps / 4); }

// What the log gets of the step that was just taken.
void show_step(const Synthesizer& synthesizer, const Values& values, StepClock* steps,
               RunLog& log) {
  const SynthesisConfig& c = synthesizer.config();
  const int64_t step = synthesizer.global_step(), within = synthesizer.step_in_batch();
  if (!values.empty() && (within % log_interval(c) == 0 || synthesizer.batch_done())) {
    Values line = named_by_teacher(values, synthesizer.asked());
    steps->report(&line);
    log.metrics(kStage, step, static_cast<double>(step) / static_cast<double>(c.g_steps), "train",
                line);
  }
  log.progress(kStage, step, c.batches * c.g_steps, steps->images_per_second(), values);
  const bool filmed = synthesizer.batch() == 0 || synthesizer.batch() + 1 == c.batches;
  if (!filmed || !is_frame(within, c.g_steps)) return;
  if (const Tensor best = synthesizer.best_so_far(); best.defined())
    log.images("film", step, every_kth(best, kFilmRows), 1);
}

}  // namespace

void store_images(const Synthesizer::Batch& batch, int64_t number, Teachers& teachers,
                  const SynthesisConfig& config, ImagePool& pool) {
  std::vector<std::pair<std::string, Tensor>> more;
  if (config.save_logits)
    for (size_t m = 0; m < teachers.size(); ++m)
      more.emplace_back("logits." + teachers[m].name(),
                        teachers[m].forward_no_grad(u8_to_unit(batch.images)).logits.data());
  for (size_t i = 0; i < batch.maps.size(); ++i) more.emplace_back(str("maps.", i), batch.maps[i]);
  for (auto& named : more) named.second = named.second.to(Device::cpu());
  pool.add(number, batch.images, batch.labels, more);
}

void show_batch(const Synthesizer::Batch& batch, int64_t number, int64_t batches,
                const std::string& stage, int64_t step, RunLog& log) {
  if (number % std::max<int64_t>(1, batches / kPictures) == 0 || number + 1 == batches)
    log.images(stage, step, every_kth(batch.images, kGrid));
}

void store_history(const Synthesizer& synthesizer, int64_t number, BankShards& bank) {
  if (const HistoryContrast* contrast = synthesizer.contrast())
    bank.write(number, contrast->latest().local, contrast->latest().global,
               synthesizer.config().bank_dtype);
}

namespace {

// From the newest good checkpoint, if there is one; the seconds that went into it.
double resume(CheckpointStore& store, int64_t batches, Synthesizer& synthesizer, ImagePool& pool,
              BankShards& bank, RunLog& log) {
  const auto state = store.load();
  if (!state) {
    log.rewind(kStage, -1);  // lines of an attempt whose checkpoints are gone
    return 0;
  }
  load(synthesizer, *state);
  pool.require(synthesizer.batch(), state->meta.at("pool"));
  bank.set_checksums(state->meta.at("bank"));
  if (synthesizer.contrast()) bank.restore(*synthesizer.contrast(), synthesizer.batch());
  log.rewind(kStage, state->step);
  log.info(str("synthesis: resumed at batch ", synthesizer.batch(), " of ", batches, ", step ",
               synthesizer.step_in_batch()));
  return state->meta.at("seconds");
}

}  // namespace

SynthesisResult synthesize(const SynthesisJob& job, Teachers& teachers, RunLog& log) {
  const SynthesisConfig c = without_student(job.config);
  ImagePool pool(job.dir, job.info);
  CheckpointStore store(job.dir + "/ckpt", job.config_sha256,
                        static_cast<int>(job.keep_checkpoints));
  BankShards bank(job.bank_dir, job.dir, c.batch_size,
                  job.keep_checkpoints * c.checkpoint_every + 1);
  Synthesizer synthesizer(teachers, c, job.options);
  const double seconds_before = resume(store, c.batches, synthesizer, pool, bank, log);
  pool.truncate(synthesizer.batch());

  const double start = now();
  double saved_at = start;
  const auto seconds = [&] { return seconds_before + now() - start; };
  const auto save = [&](CheckpointStore& where) {
    StageState state;
    mtcki::save(synthesizer, state);
    if (const std::string name = not_finite(state.tensors); !name.empty())
      throw NumericError(str("synthesis, batch ", synthesizer.batch(), ": ", name,
                             " is not finite after step ", synthesizer.step_in_batch()));
    state.meta["seconds"] = seconds();
    state.meta["pool"] = pool.digest(synthesizer.batch());
    state.meta["bank"] = bank.checksums();
    where.save(state);
    saved_at = now();
  };
  StepClock steps(c.batch_size, teachers.device());
  const int64_t log_every = log_interval(c);
  while (synthesizer.batch() < c.batches) {
    Values values;
    {
      const StageProfiles::Step profiled(log.profiles(), kStage);
      steps.begin();
      values = synthesizer.step();
      steps.end();
    }
    // Saving is collective: the first rank's clock decides.
    const bool long_unsaved = communicator().broadcast(now() - saved_at > kLongestUnsavedSeconds);
    if (synthesizer.step_in_batch() % log_every == 0 || long_unsaved) values = synthesizer.read();
    show_step(synthesizer, values, &steps, log);
    bool saved = false;
    if (synthesizer.batch_done()) {
      const int64_t number = synthesizer.batch();
      const Synthesizer::Batch batch = synthesizer.finish();
      store_history(synthesizer, number, bank);
      store_images(batch, number, teachers, c, pool);
      show_batch(batch, number, c.batches, kStage, synthesizer.global_step(), log);
      if ((number + 1) % c.checkpoint_every == 0) {
        save(store);
        saved = true;
        if (synthesizer.contrast()) bank.prune(*synthesizer.contrast(), synthesizer.batch());
      }
    } else if (long_unsaved) {
      save(store);
      saved = true;
    }
    if (synthesizer.batch() == c.batches) break;
    if (const int signal = poll_stop()) {
      if (!saved) {
        synthesizer.read();
        save(store);
      }
      log.end_progress();
      throw Stopped{signal};
    }
  }
  log.end_progress();
  CheckpointStore final_state(job.dir + "/final", job.config_sha256);
  save(final_state);
  return {pool.size(), synthesizer.budget(), seconds(),
          "final/" + CheckpointStore::seal_of(synthesizer.global_step())};
}

}  // namespace mtcki

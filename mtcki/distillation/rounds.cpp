#include "mtcki/distillation/rounds.h"

#include <cmath>
#include <optional>

#include "mtcki/distillation/teacher_weights.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/synthesis/stage.h"
#include "tensor/context.h"

namespace mtcki {

namespace {

// The synthesis of one student's rounds.
class OwnSynthesis {
 public:
  OwnSynthesis(const DistillJob& job, Teachers& teachers)
      : before_(job.synthesis.batches),
        set_bank_(job.set_bank_dir, job.set_dir, job.synthesis.batch_size, 0),
        bank_(job.dir + "/bank", job.dir, job.synthesis.batch_size, 0),
        synthesizer_(teachers, job.synthesis, job.options) {
    if (before_ == 0) return;
    const auto state = CheckpointStore(job.set_dir + "/final", job.set_sha256).load();
    if (!state)
      throw UsageError(str(job.set_dir, ": no finished synthesis to continue; run `mtcki invert`"));
    StageState anew = history();
    load(synthesizer_, *state);
    if (job.rounds.keep_history) {
      remembered_ = before_;
      set_bank_.set_checksums(state->meta.at("bank"));
    } else if (synthesizer_.contrast()) {
      load(*synthesizer_.contrast(), anew);
    }
    if (synthesizer_.contrast()) set_bank_.restore(*synthesizer_.contrast(), remembered_);
    spent_before_ = synthesizer_.budget();
  }

  // A batch that it finishes goes to the replay and, for a picture, to *finished.
  Values step(Student& student, Replay& replay, std::optional<Synthesizer::Batch>* finished) {
    const Values values = synthesizer_.step(&student);
    if (!synthesizer_.batch_done()) return values;
    const int64_t number = synthesizer_.batch() - before_;
    *finished = synthesizer_.finish();
    store_history(synthesizer_, number, bank_);
    replay.add(number, **finished);
    return values;
  }
  Values read() { return synthesizer_.read(); }
  int64_t batches() const { return synthesizer_.batch() - before_; }  // of the rounds
  void forget_graphs() { synthesizer_.forget_graphs(); }
  ImageSource& source() { return synthesizer_.source(); }

  Budget budget() const {
    Budget own = synthesizer_.budget();
    own.images -= spent_before_.images;
    own.generator_steps -= spent_before_.generator_steps;
    own.forward_macs -= spent_before_.forward_macs;
    return own;
  }

  void visit(State& s) {
    s("synthesizer", synthesizer_);
    nlohmann::json rows = bank_.checksums();
    s("bank", rows);
    if (!s.loading()) return;
    bank_.set_checksums(rows);
    if (!synthesizer_.contrast()) return;
    // The ring: rows of the set that was made before, then this stage's.
    set_bank_.restore(*synthesizer_.contrast(), remembered_);
    bank_.replay(*synthesizer_.contrast(), synthesizer_.batch() - before_);
  }

 private:
  // What the contrast knows of the batches so far, but for its bank.
  StageState history() {
    StageState state;
    if (synthesizer_.contrast()) save(*synthesizer_.contrast(), state);
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
    return state;
  }

  int64_t before_;          // batches of the set that was made before
  int64_t remembered_ = 0;  // those of them whose rows the bank begins with
  BankShards set_bank_, bank_;
  Synthesizer synthesizer_;
  Budget spent_before_;
};

// The teachers' weights, where rounds learn them; as they were at the end, for the next student.
class LearntWeights {
 public:
  LearntWeights(const DistillJob& job, Teachers& teachers) : job_(job), teachers_(teachers) {
    given_ = now();
    if (job.rounds.weight_step > 0) set(teachers.weights());  // between 0 and 1
  }
  ~LearntWeights() { set(given_); }
  LearntWeights(const LearntWeights&) = delete;
  LearntWeights& operator=(const LearntWeights&) = delete;

  // Behind the last batch of a round: whether they changed.
  bool learn(int64_t batches, Replay& replay) {
    const int64_t round = batches / job_.rounds.batches - 1;  // 0-based
    if (job_.rounds.weight_step == 0 || round < 1 || batches % job_.rounds.batches != 0)
      return false;
    const StageScope scope("distill/weights");
    const data::ImageSet images = replay.images();
    learn_weights(teachers_, images, job_.config.batch_size,
                  job_.rounds.weight_step * std::pow(0.99, static_cast<double>(round)),
                  {job_.seed, rng_stream("distill/weights"), static_cast<uint64_t>(round)});
    macs_ += teachers_.macs() * static_cast<double>(images.size());
    return true;
  }
  double macs() const { return macs_; }  // teachers, forward
  Values values() const {
    Values out;
    for (size_t m = 0; m < teachers_.size(); ++m)
      out.emplace_back("weight." + teachers_[m].name(), now()[m]);
    return out;
  }

  void visit(State& s) {
    std::vector<double> weights = now();
    s("weights", weights);
    s("macs", macs_);
    if (s.loading()) set(weights);
  }

 private:
  std::vector<double> now() const {
    std::vector<double> out;
    for (size_t m = 0; m < teachers_.size(); ++m) out.push_back(teachers_[m].options().weight);
    return out;
  }
  void set(const std::vector<double>& weights) {
    for (size_t m = 0; m < teachers_.size(); ++m) teachers_[m].set_weight(weights.at(m));
  }

  const DistillJob& job_;
  Teachers& teachers_;
  std::vector<double> given_;
  double macs_ = 0;
};

Rounds rounds_of(const DistillJob& job, Replay& replay) {
  Rounds r;
  r.epochs = job.config.epochs;
  const int64_t per_epoch =
      job.config.steps_per_epoch > 0 ? job.config.steps_per_epoch : replay.batches_per_pass();
  if (job.rounds.per_epoch > 0) {
    r.per_epoch = job.rounds.per_epoch;
    r.g_steps = job.rounds.batches * job.synthesis.g_steps;
  }
  r.kd_steps = per_epoch / r.per_epoch;
  return r;
}

// Named apart from the student's.
Values of_synthesis(Values values) {
  for (auto& [name, value] : values) name.insert(0, "synthesis.");
  return values;
}

ReplayContext replay_context(const DistillJob& job, Teachers& teachers, Student& student,
                             const data::ImageSet& set, OwnSynthesis* own) {
  ReplayContext c{.set = set,
                  .config = job.config,
                  .loader_threads = job.loader_threads,
                  .seed = job.seed ^ rng_stream(job.stage.c_str()),
                  .device = student.device()};
  if (!own) return c;
  c.teachers = &teachers;
  c.source = &own->source();
  c.synthesis = job.synthesis;
  c.dir = job.dir;
  c.info = job.info;
  return c;
}

// Test, weights.
void add_student(FitJob& fit, Student& student, Distiller& distiller, const data::ImageSet& test) {
  const data::ImageSet held_out = on_device(test, student.device());
  fit.evaluate = [&student, &distiller, held_out] {
    return distiller.trainer().with_final_weights([&] { return evaluate(student, held_out); });
  };
  fit.write_model = [&student, &distiller, sha = fit.config_sha256, classes = test.class_ids,
                     is_accuracy = fit.measure == "top1"](const std::string& path,
                                                          const Accuracy& measured) {
    const Accuracy a = is_accuracy ? measured : Accuracy{};
    distiller.trainer().with_final_weights([&] {
      write_model_file(path, student.net(),
                       {student.spec(), student.normalization(), a.top1, a.top5, sha, classes});
      return 0;
    });
  };
}

}  // namespace

DistillResult distill(const DistillJob& job, Teachers& teachers, Student& student,
                      const data::ImageSet& set, const data::ImageSet& test, RunLog& log) {
  std::optional<OwnSynthesis> own;
  if (job.rounds.per_epoch > 0) own.emplace(job, teachers);
  LearntWeights weights(job, teachers);
  const ReplayContext shown = replay_context(job, teachers, student, set, own ? &*own : nullptr);
  const std::unique_ptr<Replay> replay = make_replay(shown);
  const Rounds rounds = rounds_of(job, *replay);
  Distiller distiller(teachers, student, job.config, rounds.all_kd_steps(), job.seed, job.compute);
  if (job.config.views > 0)
    distiller.keep_teacher_outputs(set, pool_loader(job.config, job.loader_threads, shown.seed));

  FitJob fit_job(job);
  fit_job.total_steps = rounds.steps();
  fit_job.steps_per_epoch = rounds.steps_per_epoch();
  fit_job.eval_every = job.config.eval_every;
  fit_job.checkpoint_every = job.config.checkpoint_every;
  fit_job.images_per_step = job.config.batch_size;
  fit_job.measure = job.measure;
  add_student(fit_job, student, distiller, test);
  const int64_t all_batches = rounds.epochs * rounds.per_epoch * job.rounds.batches;
  bool synthesising = false;  // in the last step
  // Rounds that are shorter than what is logged: their last batch's values stand beside the student's.
  Values of_batch;
  const auto both = [&](Values values) {
    if (!values.empty() && rounds.per_epoch > 1)
      values.insert(values.end(), of_batch.begin(), of_batch.end());
    return values;
  };
  fit_job.step = [&](int64_t step) -> Values {
    const Rounds::Step at = rounds.at(step);
    synthesising = at.synthesis;
    if (!synthesising) return both(distiller.step(*replay, at.number));
    std::optional<Synthesizer::Batch> finished;
    Values values = of_synthesis(own->step(student, *replay, &finished));
    if (finished) {
      show_batch(*finished, own->batches() - 1, all_batches, job.stage, step + 1, log);
      if (weights.learn(own->batches(), *replay)) {
        own->forget_graphs();
        for (const auto& value : weights.values()) values.push_back(value);
      }
      of_batch = values;
      distiller.forget_graphs();
    }
    return values;
  };
  if (distiller.is_deferred())
    fit_job.read = [&] {
      return synthesising ? of_synthesis(own->read()) : both(distiller.read());
    };
  fit_job.state = [&](State& state) {
    distiller.visit(state);
    if (own) state("synthesis", *own);
    if (job.rounds.weight_step > 0) state("learnt", weights);
    state("replay", *replay);
  };
  const FitResult result = fit(fit_job, log);
  Budget budget = distiller.budget();
  if (own) budget += own->budget();
  budget.kd_forward_macs += weights.macs();
  return {result, budget};
}

}  // namespace mtcki

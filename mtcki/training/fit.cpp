#include "mtcki/training/fit.h"

#include <algorithm>
#include <chrono>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "mtcki/log/stage_profiles.h"
#include "mtcki/log/step_clock.h"
#include "mtcki/training/stage_control.h"
#include "nn/state_dict.h"
#include "tensor/comm.h"
#include "tensor/context.h"

namespace mtcki {

namespace {

constexpr double kLongestUnsavedSeconds = 60;  // long epochs are saved in between

class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Where the loop stands; what a checkpoint holds beside the job's own state.
struct Position {
  int64_t step = 0;
  Accuracy last;
  double top1_best = -1, seconds = 0;
  uint32_t best_crc32c = 0;  // of best.safetensors

  void visit(State& s) {
    s("step", step);
    s("top1", last.top1);
    s("top5", last.top5);
    s("n", last.n);
    s("top1_best", top1_best);
    s("seconds", seconds);
    s("best_crc32c", best_crc32c);
  }
};

class Loop {
 public:
  Loop(const FitJob& job, RunLog& log)
      : job_(job),
        log_(log),
        store_(job.dir + "/ckpt", job.config_sha256, static_cast<int>(job.keep_checkpoints)),
        best_(job.dir + "/best.safetensors"),
        steps_(job.images_per_step, job.compute.device) {
    resume();
  }

  FitResult run() {
    Values values;  // where they wait: those of the last read
    while (at_.step < job_.total_steps) {
      const bool due = checkpoint_due(at_.step + 1), logged = logged_at(at_.step + 1);
      step(due || logged, due, &values);
      ++at_.step;
      if (!values.empty() && logged) {
        Values line = values;
        steps_.report(&line);
        log_.metrics(job_.stage, at_.step, epochs(), "train", line);
      }
      if (ends_epoch(at_.step)) test();
      Values shown = values;
      if (at_.last.top1 >= 0) shown.emplace_back(job_.measure, at_.last.top1);
      log_.progress(job_.stage, at_.step, job_.total_steps, steps_.images_per_second(), shown);
      if (due) save();
      if (at_.step == job_.total_steps) break;
      if (const int signal = poll_stop()) stop(signal, due);
    }
    log_.end_progress();
    // A resumed attempt may never have written it.
    if (!data::file_exists(best_) || data::crc32c_file(best_) != at_.best_crc32c)
      throw DataError(str(best_, ": missing, or not what the stage wrote; delete the folder \"",
                          job_.dir, "\" to do this stage again"));
    job_.write_model(job_.dir + "/model.safetensors", at_.last);
    at_.seconds = seconds_before_ + clock_.seconds();
    return {at_.last, at_.top1_best, at_.seconds};
  }

 private:
  void visit(State s) {
    s("fit", at_);
    job_.state(s);
  }

  void resume() {
    if (const auto state = store_.load()) {
      visit(State::loading(*state));
      log_.rewind(job_.stage, at_.step);
      log_.info(str(job_.stage, ": resumed at step ", at_.step, " of ", job_.total_steps));
    } else {
      log_.rewind(job_.stage, -1);  // lines of an attempt whose checkpoints are gone
    }
    seconds_before_ = at_.seconds;
  }

  void save() {
    at_.seconds = seconds_before_ + clock_.seconds();
    StageState state;
    state.step = at_.step;
    visit(State::saving(state));
    store_.save(state);
    saved_at_ = clock_.seconds();
  }

  // An update may be what is not finite, and a loss shows it only one step later: what is saved must
  // be good to go back to.
  void check_state(int64_t step) {
    StageState state;
    visit(State::saving(state));
    if (const std::string name = not_finite(state.tensors); !name.empty())
      throw NumericError(str(name, " is not finite after step ", step));
  }

  bool ends_epoch(int64_t step) const {
    return step % job_.steps_per_epoch == 0 || step == job_.total_steps;
  }
  double epochs() const {
    return static_cast<double>(at_.step) / static_cast<double>(job_.steps_per_epoch);
  }
  bool logged_at(int64_t step) const {
    const int64_t every = std::max<int64_t>(1, std::min<int64_t>(50, job_.steps_per_epoch / 4));
    return step % every == 0 || ends_epoch(step);
  }
  bool checkpoint_due(int64_t step) const {
    const bool regular =
        job_.checkpoint_every > 0 ? step % job_.checkpoint_every == 0 : ends_epoch(step);
    // Saving is collective: the first rank's clock decides.
    return regular ||
           communicator().broadcast(clock_.seconds() - saved_at_ > kLongestUnsavedSeconds);
  }

  void step(bool read, bool due, Values* values) {
    try {
      const StageProfiles::Step profiled(log_.profiles(), job_.stage);
      steps_.begin();
      Values now = job_.step(at_.step);
      if (!job_.read) {
        *values = std::move(now);
      } else if (read || (at_.step + 1) % job_.compute.read_every == 0) {
        *values = job_.read();
      }
      steps_.end();
      if (due) check_state(at_.step);
    } catch (const NumericError& e) {
      throw NumericError(str(job_.stage, ", step ", at_.step, ": ", e.what()));
    }
  }

  void test() {
    const int64_t epoch = (at_.step + job_.steps_per_epoch - 1) / job_.steps_per_epoch;
    if (epoch % job_.eval_every != 0 && at_.step != job_.total_steps) return;
    at_.last = job_.evaluate();
    Values tested{{job_.measure, at_.last.top1}};
    if (job_.measure == "top1") tested.emplace_back("top5", at_.last.top5);
    log_.metrics(job_.stage, at_.step, epochs(), "eval", tested);
    if (at_.last.top1 <= at_.top1_best) return;
    at_.top1_best = at_.last.top1;
    job_.write_model(best_, at_.last);
    at_.best_crc32c = data::crc32c_file(best_);
  }

  [[noreturn]] void stop(int signal, bool saved) {
    if (!saved) {
      if (job_.read) job_.read();
      try {
        check_state(at_.step - 1);
        save();
      } catch (const NumericError& e) {
        log_.warn(str(job_.stage, ": ", e.what(), "; the checkpoint before stays the last"));
      }
    }
    log_.end_progress();
    throw Stopped{signal};
  }

  const FitJob& job_;
  RunLog& log_;
  CheckpointStore store_;
  std::string best_;
  StepClock steps_;
  Position at_;
  Clock clock_;
  double saved_at_ = 0, seconds_before_ = 0;
};

}  // namespace

FitResult fit(const FitJob& job, RunLog& log) {
  data::make_directories(job.dir);
  const StageScope scope(job.stage.c_str());
  return Loop(job, log).run();
}

}  // namespace mtcki

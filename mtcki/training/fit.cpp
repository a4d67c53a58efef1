#include "mtcki/training/fit.h"

#include <algorithm>
#include <chrono>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "mtcki/log/stage_profiles.h"
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

}  // namespace

FitResult fit(const FitJob& job, RunLog& log) {
  data::make_directories(job.dir);
  CheckpointStore store(job.dir + "/ckpt", job.config_sha256,
                        static_cast<int>(job.keep_checkpoints));
  const StageScope scope(job.stage.c_str());
  const std::string best = job.dir + "/best.safetensors";
  Position at;
  const auto visit = [&](State s) {
    s("fit", at);
    job.state(s);
  };
  if (const auto state = store.load()) {
    visit(State::loading(*state));
    log.rewind(job.stage, at.step);
    log.info(str(job.stage, ": resumed at step ", at.step, " of ", job.total_steps));
  } else {
    log.rewind(job.stage, -1);  // lines of an attempt whose checkpoints are gone
  }

  Clock clock;
  double saved_at = 0;
  const double seconds_before = at.seconds;
  const auto save = [&] {
    at.seconds = seconds_before + clock.seconds();
    StageState state;
    state.step = at.step;
    visit(State::saving(state));
    store.save(state);
    saved_at = clock.seconds();
  };
  // An update may be what is not finite, and a loss shows it only one step later: what is saved must
  // be good to go back to.
  const auto check_state = [&](int64_t step) {
    StageState state;
    visit(State::saving(state));
    if (const std::string name = not_finite(state.tensors); !name.empty())
      throw NumericError(str(name, " is not finite after step ", step));
  };
  const int64_t first = at.step;
  const int64_t log_every = std::max<int64_t>(1, std::min<int64_t>(50, job.steps_per_epoch / 4));
  const auto ends_epoch = [&](int64_t step) {
    return step % job.steps_per_epoch == 0 || step == job.total_steps;
  };
  Values values;  // where they wait: those of the last read
  while (at.step < job.total_steps) {
    const int64_t next = at.step + 1;
    const bool epoch_end = ends_epoch(next);
    const bool due = (job.checkpoint_every > 0 ? next % job.checkpoint_every == 0 : epoch_end) ||
                     // Saving is collective: the first rank's clock decides.
                     communicator().broadcast(clock.seconds() - saved_at > kLongestUnsavedSeconds);
    const bool logged = next % log_every == 0 || epoch_end;
    try {
      const StageProfiles::Step profiled(log.profiles(), job.stage);
      Values now = job.step(at.step);
      if (!job.read) {
        values = std::move(now);
      } else if (due || logged || next % job.read_every == 0) {
        values = job.read();
      }
      if (due) check_state(at.step);
    } catch (const NumericError& e) {
      throw NumericError(str(job.stage, ", step ", at.step, ": ", e.what()));
    }
    at.step = next;
    const int64_t epoch = (at.step + job.steps_per_epoch - 1) / job.steps_per_epoch;
    const double fraction = static_cast<double>(at.step) / static_cast<double>(job.steps_per_epoch);
    if (!values.empty() && logged) log.metrics(job.stage, at.step, fraction, "train", values);
    if (epoch_end && (epoch % job.eval_every == 0 || at.step == job.total_steps)) {
      at.last = job.evaluate();
      Values tested{{job.measure, at.last.top1}};
      if (job.measure == "top1") tested.emplace_back("top5", at.last.top5);
      log.metrics(job.stage, at.step, fraction, "eval", tested);
      if (at.last.top1 > at.top1_best) {
        at.top1_best = at.last.top1;
        job.write_model(best, at.last);
        at.best_crc32c = data::crc32c_file(best);
      }
    }
    const double speed =
        static_cast<double>((at.step - first) * job.images_per_step) / clock.seconds();
    Values shown = values;
    if (at.last.top1 >= 0) shown.emplace_back(job.measure, at.last.top1);
    log.progress(job.stage, at.step, job.total_steps, speed, shown);
    if (due) save();
    if (at.step == job.total_steps) break;
    if (const int signal = poll_stop()) {
      if (!due) {
        if (job.read) job.read();
        try {
          check_state(at.step - 1);
          save();
        } catch (const NumericError& e) {
          log.warn(str(job.stage, ": ", e.what(), "; the checkpoint before stays the last"));
        }
      }
      log.end_progress();
      throw Stopped{signal};
    }
  }
  log.end_progress();
  // A resumed attempt may never have written it.
  if (!data::file_exists(best) || data::crc32c_file(best) != at.best_crc32c)
    throw DataError(str(best, ": missing, or not what the stage wrote; delete the folder \"",
                        job.dir, "\" to do this stage again"));
  job.write_model(job.dir + "/model.safetensors", at.last);
  at.seconds = seconds_before + clock.seconds();
  return {at.last, at.top1_best, at.seconds};
}

}  // namespace mtcki

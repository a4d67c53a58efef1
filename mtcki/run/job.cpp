#include "mtcki/run/job.h"

#include <filesystem>
#include <new>

#include "mtcki/config/table_names.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/report/report.h"
#include "mtcki/run/context.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/metrics.h"
#include "mtcki/run/no_data.h"
#include "mtcki/run/pipeline.h"
#include "tensor/comm.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

PipelineResult execute(const RunConfig& config, const std::string& stage, const std::string& folder,
                       RunLog& log) {
  PipelineResult result;
  if (stage == "train") {
    result.teachers = run_teachers(config, folder, log);
  } else if (stage == "invert") {
    result.synthetic_images = run_synthesis(config, folder, log);
  } else if (stage == "distill") {
    if (config.students.empty())
      throw UsageError(
          "students: none given; write [[students]] with a model, or "
          "students.0.model=... on the command line");
    result.students = run_students(config, folder, log);
    result.note = measurement_note(config);
  } else if (stage == "classifier") {
    run_classifier(config, folder, log);
  } else {
    result = run_pipeline(config, folder, log);
  }
  return result;
}

}  // namespace

RunNeeds needs_of(const RunConfig& config, const RunJob& job) {
  const std::string folder = RunFolder::path_of(config);
  const auto open = [&](const std::string& stage) {
    std::error_code ec;
    return job.fresh || !fs::exists(folder + "/" + stage + "/done.json", ec);
  };
  const auto does = [&job](const char* stage) { return job.stage.empty() || job.stage == stage; };
  RunNeeds needs;
  needs.generator = does("invert") && !is_given(config.synthesis.source);
  needs.training_set = (does("classifier") && !config.metrics.classifier_model.empty() &&
                        config.metrics.classifier_weights.empty() && open("metrics/classifier")) ||
                       (does("invert") && config.synthesis.source == "real" && open("synth"));
  if (does("train"))
    for (const TeacherConfig& t : config.teachers)
      needs.training_set = needs.training_set || (t.weights.empty() && open("teachers/" + t.name));
  return needs;
}

nlohmann::json run_job(const RunConfig& config, const RunJob& job) {
  const Communicator& ranks = communicator();
  // Of several ranks, the first one holds the folder and keeps the log.
  if (!ranks.is_root()) {
    ranks.barrier();
    RunLog silent;
    return to_json(execute(config, job.stage, RunFolder::path_of(config), silent));
  }
  RunFolder folder(config, job.argv, job.fresh);
  ranks.barrier();
  RunLog log(folder.path(), config.tensorboard);
  log.profile_stages(job.profile, job.device, config.precision);
  // While the run is under way its page loads itself again.
  log.on_news([&] { write_report({folder.path()}, folder.path() + "/report.html", {10}); });
  if (ranks.size() > 1) log.info(str("data-parallel over ", ranks.size(), " ranks"));
  const auto close_with = [&](const std::string& status, int code) {
    log.end_progress();
    folder.finish(status, code, log.warnings());
    // The report of an unfinished run shows how far it came.
    if (fs::exists(folder.path() + "/metrics.jsonl"))
      write_report({folder.path()}, folder.path() + "/report.html");
  };
  try {
    if (job.prepare) job.prepare(folder.path());
    const PipelineResult result = execute(config, job.stage, folder.path(), log);
    log.end_progress();
    nlohmann::json out = job.stage.empty() ? folder.write_result(result) : to_json(result);
    close_with("finished", 0);
    return out;
  } catch (const Stopped& s) {
    close_with("stopped", 128 + s.signal);
    throw;
  } catch (const Error& e) {
    try {
      close_with(e.what(), e.exit_code());
    } catch (const Error&) {
      // A full disk may be why it failed; the first error is the one to show.
    }
    throw;
  } catch (const std::bad_alloc&) {
    throw OutOfMemoryError(
        "out of memory; smaller batch sizes (train, synthesis, distill) need less");
  }
}

}  // namespace mtcki

// run, train, invert, distill: one configuration, the whole job or one of its stages.
#include <cstdio>
#include <filesystem>
#include <new>

#include "mtcki/cli/commands.h"
#include "mtcki/config/config.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/log/run_log.h"
#include "mtcki/report/report.h"
#include "mtcki/run/context.h"
#include "mtcki/run/dry_run.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/folder_content.h"
#include "mtcki/run/no_data.h"
#include "mtcki/run/pipeline.h"
#include "mtcki/run/preflight.h"
#include "mtcki/training/compute.h"
#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

RunConfig resolve(const RunOptions& o) {
  std::vector<std::string> files, overrides;
  for (const std::string& input : o.inputs) {
    // A file may have '=' in its name only when it exists.
    std::error_code ec;
    const bool file =
        input.find('=') == std::string::npos || std::filesystem::is_regular_file(input, ec);
    (file ? files : overrides).push_back(input);
  }
  overrides.insert(overrides.end(), o.compute_given.begin(), o.compute_given.end());
  if (o.profile > 0) overrides.emplace_back("graph=off");  // repeated graphs have no times of ops
  if (o.no_tensorboard) overrides.emplace_back("tensorboard=false");
  if (o.inputs.empty())
    throw UsageError("no configuration given, e.g. mtcki run configs/demo.toml");
  return load_config(files, overrides);
}

// Training images may be gone once the teachers are there.
Needs needs_of(const RunOptions& o, const RunConfig& config) {
  const std::string folder = RunFolder::path_of(config);
  const auto open = [&](const std::string& stage) {
    std::error_code ec;
    return o.fresh || !std::filesystem::exists(folder + "/" + stage + "/done.json", ec);
  };
  Needs needs;
  needs.generator = o.stage.empty() || o.stage == "invert";
  needs.training_set = o.stage.empty() && !config.metrics.classifier_model.empty() &&
                       config.metrics.classifier_weights.empty() && open("metrics/classifier");
  if (o.stage.empty() || o.stage == "train")
    for (const TeacherConfig& t : config.teachers)
      needs.training_set = needs.training_set || (t.weights.empty() && open("teachers/" + t.name));
  return needs;
}

PipelineResult execute(const RunOptions& o, const RunConfig& config, const std::string& folder,
                       RunLog& log) {
  PipelineResult result;
  if (o.stage == "train") {
    result.teachers = run_teachers(config, folder, log);
  } else if (o.stage == "invert") {
    result.synthetic_images = run_synthesis(config, folder, log);
  } else if (o.stage == "distill") {
    if (config.students.empty())
      throw UsageError(
          "students: none given; write [[students]] with a model, or "
          "students.0.model=... on the command line");
    result.students = run_students(config, folder, log);
    result.note = measurement_note(config);
  } else {
    result = run_pipeline(config, folder, log);
  }
  return result;
}

}  // namespace

int run_command(const RunOptions& o) {
  if (o.help_config) {
    std::fputs(config_reference().c_str(), stdout);
    return 0;
  }
  RunConfig config = resolve(o);
  if (o.print_config) {
    std::fputs(to_toml(config).c_str(), stdout);
    std::printf("\n# sha256 of what affects results: %s\n", config_sha256(config).c_str());
    return 0;
  }
  const Communicator& job = communicator();  // starts MPI under mpirun
  // One rank speaks for all, unless another one fails (main.cpp).
  console::set_silent(!job.is_root());
  config.device = device_of_rank(config.device);
  const int threads = threads_of_rank(config.threads);
  const Device device = apply({config.device, threads, config.precision, config.conv, config.graph,
                               config.deterministic, config.autotune, o.compute.device_given});
  preflight(config, needs_of(o, config));
  if (o.check) {
    const std::string folder = RunFolder::path_of(config);
    require_run_folder(folder);
    if (!o.fresh) RunContext(config, folder).require_same_configuration();
    if (job.is_root()) std::puts("configuration, files and models are fine");
    return 0;
  }
  console::info(banner(device, config.precision));
  install_signal_handlers();
  if (o.dry_run) {
    if (job.size() > 1) throw UsageError("--dry-run: start it without mpirun");
    std::fputs(dry_run_table(dry_run(config)).c_str(), stdout);
    return 0;
  }
  // Of several ranks, the first one holds the folder and keeps the log.
  if (!job.is_root()) {
    job.barrier();
    RunLog silent;
    execute(o, config, RunFolder::path_of(config), silent);
    return 0;
  }
  RunFolder folder(config, o.argv, o.fresh);
  job.barrier();
  RunLog log(folder.path(), config.tensorboard);
  log.profile_stages(o.profile, device, config.precision);
  // While the run is under way its page loads itself again.
  log.on_news([&] { write_report({folder.path()}, folder.path() + "/report.html", {10}); });
  if (job.size() > 1) log.info(str("data-parallel over ", job.size(), " ranks"));
  const auto close_with = [&](const std::string& status, int code) {
    log.end_progress();
    folder.finish(status, code, log.warnings());
    // The report of an unfinished run shows how far it came.
    if (std::filesystem::exists(folder.path() + "/metrics.jsonl"))
      write_report({folder.path()}, folder.path() + "/report.html");
  };
  try {
    const PipelineResult result = execute(o, config, folder.path(), log);
    log.end_progress();
    const std::string table =
        result_table(o.stage.empty() ? folder.write_result(result) : to_json(result));
    close_with("finished", 0);
    std::fputs(table.c_str(), stdout);
    if (o.stage.empty()) std::printf("result: %s/result.json\n", folder.path().c_str());
    std::printf("report: %s/report.html\n", folder.path().c_str());
    return 0;
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

}  // namespace mtcki::cli

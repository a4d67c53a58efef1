// run, train, invert, distill: one configuration, the whole job or one of its stages.
#include <cstdio>

#include "mtcki/cli/commands.h"
#include "mtcki/config/config.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/run/context.h"
#include "mtcki/run/dry_run.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/folder_content.h"
#include "mtcki/run/job.h"
#include "mtcki/training/compute.h"
#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

RunConfig resolve(const RunOptions& o) {
  std::vector<std::string> files, overrides;
  for (const std::string& input : o.inputs) {
    const bool file = !is_override(input);
    (file ? files : overrides).push_back(input);
  }
  overrides.insert(overrides.end(), o.compute_given.begin(), o.compute_given.end());
  if (o.profile > 0) overrides.emplace_back("graph=off");  // repeated graphs have no times of ops
  if (o.no_tensorboard) overrides.emplace_back("tensorboard=false");
  if (o.inputs.empty())
    throw UsageError("no configuration given, e.g. mtcki run configs/demo.toml");
  return load_config(files, overrides);
}

}  // namespace

RunConfig ready_to_run(RunConfig config, RunJob* job, bool device_given) {
  const Communicator& ranks = communicator();  // starts MPI under mpirun
  // One rank speaks for all, unless another one fails (main.cpp).
  console::set_silent(!ranks.is_root());
  config.device = device_of_rank(config.device);
  job->device =
      apply({config.device, threads_of_rank(config.threads), config.precision, config.conv,
             config.graph, config.deterministic, config.autotune, device_given});
  preflight(config, needs_of(config, *job));
  return config;
}

int run_command(const RunOptions& o) {
  if (o.help_config) {
    std::fputs(config_reference().c_str(), stdout);
    return 0;
  }
  const RunConfig config = resolve(o);
  if (o.print_config) {
    std::fputs(to_toml(config).c_str(), stdout);
    std::printf("\n# sha256 of what affects results: %s\n", config_sha256(config).c_str());
    return 0;
  }
  RunJob job{o.stage, o.argv, o.fresh, o.profile};
  const RunConfig ready = ready_to_run(config, &job, o.compute.device_given);
  const Communicator& ranks = communicator();
  const std::string folder = RunFolder::path_of(ready);
  if (o.check) {
    require_run_folder(folder);
    if (!o.fresh) RunContext(ready, folder).require_same_configuration();
    if (ranks.is_root()) std::puts("configuration, files and models are fine");
    return 0;
  }
  console::info(banner(job.device, ready.precision));
  install_signal_handlers();
  if (o.dry_run) {
    if (ranks.size() > 1) throw UsageError("--dry-run: start it without mpirun");
    std::fputs(dry_run_table(dry_run(ready)).c_str(), stdout);
    return 0;
  }
  const nlohmann::json result = run_job(ready, job);
  if (!ranks.is_root()) return 0;
  std::fputs(result_table(result).c_str(), stdout);
  if (o.stage.empty()) std::printf("result: %s/result.json\n", folder.c_str());
  std::printf("report: %s/report.html\n", folder.c_str());
  return 0;
}

}  // namespace mtcki::cli

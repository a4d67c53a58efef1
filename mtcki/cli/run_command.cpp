// run, train, invert, distill: one configuration, the whole job or one of its stages.
#include <algorithm>
#include <cstdio>

#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/config/config.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/run/context.h"
#include "mtcki/run/dry_run.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/folder_content.h"
#include "mtcki/run/job.h"
#include "mtcki/run/overfit.h"
#include "mtcki/training/compute.h"
#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct RunOptions {
  std::string stage;                // "" whole job; train | invert | distill
  std::vector<std::string> inputs;  // configuration files and key=value, in order
  std::vector<std::string> argv;
  ComputeOptions compute;
  std::vector<std::string> compute_given;  // as KEY=VALUE
  bool fresh = false, print_config = false, help_config = false, check = false, dry_run = false;
  bool overfit = false;
  bool no_tensorboard = false;
  int64_t profile = 0;  // steps of each stage; 0: none
};

RunConfig resolve(const RunOptions& o, ConfigOrigins* origins) {
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
  return load_config(files, overrides, origins);
}

int run_command(const RunOptions& o) {
  if (o.help_config) {
    std::fputs(config_reference().c_str(), stdout);
    return 0;
  }
  ConfigOrigins origins;
  const RunConfig config = resolve(o, &origins);
  if (o.print_config) {
    std::fputs(to_toml(config, &origins).c_str(), stdout);
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
  if (o.overfit) {
    const std::vector<Overfit> networks = overfit_batch(ready);
    std::fputs(overfit_table(networks).c_str(), stdout);
    if (std::ranges::all_of(networks, &Overfit::reached)) return 0;
    throw NumericError("--overfit-batch: not learned by every network; try another train.lr");
  }
  const nlohmann::json result = run_job(ready, job);
  if (!ranks.is_root()) return 0;
  std::fputs(result_table(result).c_str(), stdout);
  if (o.stage.empty()) std::printf("result: %s/result.json\n", folder.c_str());
  std::printf("report: %s/report.html\n", folder.c_str());
  return 0;
}

const char kRunFooter[] =
    "Arguments are configuration files (TOML), applied in order, and KEY=VALUE\n"
    "overrides, e.g.\n"
    "  mtcki run configs/demo.toml seed=1 synthesis.g_steps=100 students.0.model=vgg8\n"
    "  mtcki run --help-config            every key with default, range and meaning\n"
    "The run folder is OUT/NAME (keys out and name). Finished stages are skipped, an\n"
    "interrupted one resumes exactly; Ctrl-C saves first (a second Ctrl-C leaves at\n"
    "once). Exit codes: 0 ok, 1 internal, 2 usage, 3 data, 4 numerics, 5 memory,\n"
    "6 disk, 130/143 stopped.";

CLI::App* add_run(CLI::App* app, const char* name, const char* what, RunOptions* o) {
  CLI::App* s = app->add_subcommand(name, what);
  s->add_option("inputs", o->inputs, "configuration files and KEY=VALUE overrides")
      ->type_name("FILE|KEY=VALUE");
  s->add_flag("--fresh", o->fresh, "start over: empties the run folder first");
  s->add_flag("--check", o->check, "check configuration, files and models, compute nothing");
  if (std::string(name) == "run") {
    s->add_flag(
        "--dry-run", o->dry_run,
        "run a few steps of each stage, print what time, memory and disk the whole will take, "
        "and leave nothing behind");
    s->add_flag("--overfit-batch", o->overfit,
                "train each network on one batch until its loss is 0.01, say whether it got there, "
                "and leave nothing behind");
  }
  s->add_flag("--print-config", o->print_config,
              "print the resolved configuration, with where each value comes from, and stop");
  s->add_flag("--help-config", o->help_config, "print every key of the configuration and stop");
  s->add_option("--profile", o->profile,
                "profile the first N steps of each stage into profile/ of the run folder")
      ->check(count());
  s->add_flag("--no-tensorboard", o->no_tensorboard, "write no TensorBoard event files");
  add_compute(s, &o->compute);
  add_recompute(s, &o->compute);
  add_choice(s, "--graph", &o->compute.graph,
             "on the GPU: capture steps and repeat them: auto (on), on or off",
             {"auto", "on", "off"});
  s->footer(kRunFooter);
  return s;
}

// The flags of the command line that stand for keys of the configuration.
std::vector<std::string> compute_given(const CLI::App* run, const ComputeOptions& c) {
  const std::pair<const char*, std::string> flags[] = {
      {"device", c.device},
      {"threads", std::to_string(c.threads)},
      {"precision", c.precision},
      {"conv", c.conv},
      {"graph", c.graph},
      {"deterministic", c.deterministic ? "true" : "false"},
      {"recompute", c.recompute ? "true" : "false"},
      {"autotune", "true"}};
  std::vector<std::string> out;
  for (const auto& [key, value] : flags)
    if (run->count(std::string("--") + key) > 0) out.push_back(std::string(key) + "=" + value);
  return out;
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

void add_runs(CommandLine* line) {
  struct Row {
    const char *name, *stage, *what;
  };
  for (const Row& row :
       {Row{"run", "", "the whole job: teachers, synthetic images, students, report"},
        Row{"train", "train", "only the teachers of a configuration"},
        Row{"invert", "invert", "only the synthetic images (teachers must be there)"},
        Row{"distill", "distill", "only the students (synthetic images must be there)"}}) {
    const auto o = std::make_shared<RunOptions>();
    o->stage = row.stage;
    o->argv = line->argv;
    CLI::App* run = add_run(line->app, row.name, row.what, o.get());
    line->commands.push_back({run, [run, o] {
                                o->compute_given = compute_given(run, o->compute);
                                o->compute.device_given = run->count("--device") > 0;
                                return run_command(*o);
                              }});
  }
}

}  // namespace mtcki::cli

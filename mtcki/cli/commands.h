// The commands of `mtcki`, each in a file with its flags. One returns its exit code or throws a typed
// exception, which main.cpp turns into one line and an exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "mtcki/run/job.h"

namespace mtcki::cli {

struct Command {
  CLI::App* app;
  std::function<int()> run;  // once `app` has been parsed
};

struct CommandLine {
  CLI::App* app;
  std::vector<std::string> argv;
  std::vector<Command> commands;  // a command of a command stands before it
};

void add_runs(CommandLine* line);  // run, train, invert, distill
void add_matrix(CommandLine* line);
void add_eval(CommandLine* line);
void add_inspect(CommandLine* line);
void add_summary(CommandLine* line);
void add_profile(CommandLine* line);
void add_roof(CommandLine* line);
void add_data(CommandLine* line);
void add_export(CommandLine* line);
void add_report(CommandLine* line);
void add_info(CommandLine* line);
void add_zoo(CommandLine* line);
void add_completion(CommandLine* line);  // of all before it

// Device, threads and kernels as the configuration says, and preflight(). The same configuration,
// with the device of this rank, which `job` receives too.
RunConfig ready_to_run(RunConfig config, RunJob* job, bool device_given = false);

}  // namespace mtcki::cli

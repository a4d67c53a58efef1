// matrix: many runs, worked on by any number of processes, and their table.
#include <cstdio>
#include <cstdlib>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/matrix/record.h"
#include "mtcki/matrix/table.h"
#include "mtcki/matrix/work.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct MatrixOptions {
  std::vector<std::string> inputs;  // the matrix, then configuration files and key=value
  std::vector<std::string> argv;
  std::vector<std::string> only;  // patterns of names of cells
  std::string table;  // text | markdown | csv | html | json: only that, from what is there
  std::string job;    // this process computes one job, which its parent has claimed
  bool list = false, dry_run = false, retry = false, no_wait = false;
};

// In a process of its own, which the one that claimed the job has started.
int compute_job(const MatrixOptions& o, const Matrix& matrix) {
  for (const MatrixJob& job : matrix.jobs) {
    if (job.name != o.job) continue;
    try {
      RunJob run{job.stage, o.argv};
      run.prepare = [&](const std::string& folder) { take_over_stages(matrix, job, folder); };
      const RunConfig config = ready_to_run(job.config, &run);
      console::info(banner(run.device, config.precision));
      install_signal_handlers();
      run_job(config, run);
    } catch (const std::exception& e) {
      report_failure(matrix, job, e.what());
      throw;
    }
    return 0;
  }
  throw UsageError("--job: the matrix has no job \"" + o.job + "\"");
}

int matrix_command(const MatrixOptions& o) {
  setenv("MTCKI_RANKS", "1", 1);  // started by mpirun, too, each process works on jobs of its own
  const std::string format = o.table.empty() ? "text" : o.table;
  if (!o.inputs.empty() && o.inputs[0].ends_with(".json")) {
    std::vector<nlohmann::json> records;
    for (const std::string& file : o.inputs) {
      if (!data::file_exists(file))
        throw UsageError(str("record \"", file, "\": no such file; only records join a record"));
      records.push_back(data::read_json(file));
      if (!records.back().is_object())
        throw DataError(str("\"", file, "\": not the record of a matrix"));
    }
    std::fputs(matrix_table(joined_records(records), format).c_str(), stdout);
    return 0;
  }
  const Matrix matrix = load_matrix(o.inputs);
  if (!o.job.empty()) return compute_job(o, matrix);
  const std::vector<size_t> jobs = chosen_jobs(matrix, o.only);
  if (o.list) {
    std::fputs(job_list(matrix, jobs).c_str(), stdout);
    return 0;
  }
  if (!o.table.empty()) {
    std::fputs(matrix_table(matrix_record(matrix), format, matrix.folder).c_str(), stdout);
    return 0;
  }
  install_signal_handlers();
  if (o.dry_run) {
    const auto ready = [](const RunConfig& config) {
      RunJob job;
      return ready_to_run(config, &job);
    };
    std::fputs(matrix_dry_run(matrix, jobs, ready).c_str(), stdout);
    return 0;
  }
  WorkOptions options{{"mtcki", "matrix"}, o.retry, !o.no_wait};
  if (console::quiet()) options.command.emplace_back("-q");
  options.command.insert(options.command.end(), o.inputs.begin(), o.inputs.end());
  options.command.emplace_back("--job");
  const int exit_code = work_on(matrix, jobs, options);
  std::fputs(matrix_table(matrix_record(matrix), format, matrix.folder).c_str(), stdout);
  std::printf("tables: %s/table.md, table.csv, table.html\n", matrix.folder.c_str());
  return exit_code;
}

}  // namespace

void add_matrix(CommandLine* line) {
  const auto o = std::make_shared<MatrixOptions>();
  o->argv = line->argv;
  CLI::App* matrix = line->app->add_subcommand(
      "matrix", "methods x teachers x data x seeds: many runs by any number of processes; a table");
  matrix->add_option("inputs", o->inputs,
                     "matrix (docs/matrix.md), then files and KEY=VALUE for all its cells; or "
                     "one or several record.json, to join and show");
  matrix->add_flag("--list", o->list, "the jobs and their state");
  matrix->add_flag("--dry-run", o->dry_run, "what is left will take, by a few steps of each");
  matrix->add_option("--only", o->only, "cells of these names: a pattern, or a part")
      ->allow_extra_args(false);
  matrix->add_option("--table", o->table,
                     "no work: print what is there as text, markdown, csv, html or json");
  matrix->add_flag("--retry", o->retry, "failed jobs too");
  matrix->add_flag("--no-wait", o->no_wait,
                   "end when all that is left is being worked on by others");
  matrix->add_option("--job", o->job)->group("");  // how it starts itself
  line->commands.push_back({matrix, [o] { return matrix_command(*o); }});
}

}  // namespace mtcki::cli

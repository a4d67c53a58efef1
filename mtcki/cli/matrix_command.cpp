// matrix: many runs, worked on by any number of processes, and their table.
#include <cstdio>
#include <cstdlib>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/cli/commands.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/matrix/record.h"
#include "mtcki/matrix/table.h"
#include "mtcki/matrix/work.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

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

}  // namespace

int matrix_command(const MatrixOptions& o) {
  setenv("MTCKI_RANKS", "1", 1);  // started by mpirun, too, each process works on jobs of its own
  const std::string format = o.table.empty() ? "text" : o.table;
  if (o.inputs.size() == 1 && o.inputs[0].ends_with(".json")) {
    const nlohmann::json record = data::read_json(o.inputs[0]);
    std::fputs(matrix_table(record, format).c_str(), stdout);
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

}  // namespace mtcki::cli

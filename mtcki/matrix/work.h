// Working on a matrix: any number of processes take its jobs, one at a time each, and compute them
// in processes of their own, so that a job that crashes stops no other and peaks of memory are its
// own. Any of them may be killed: what it worked on is resumed by another.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mtcki/matrix/matrix.h"

namespace mtcki {

struct JobState {
  enum Kind { open, running, failed, finished } kind = open;
  std::string text = {};   // of a failed one: why; of a running one: its process and machine
  int exit_code = 0;       // of a failed one
  double seconds = 0;      // of the process that finished it
  std::string claim = {};  // the last claim's text
  const char* word() const {
    static const char* const words[] = {"open", "running", "failed", "finished"};
    return words[kind];
  }
};
JobState job_state(const Matrix& matrix, size_t job);

// The cells whose names match one of the patterns (as of fnmatch(3); a part of a name when it has no
// wildcard; none given: all), and what they use, in the order of Matrix::jobs. UsageError when there
// are none.
std::vector<size_t> chosen_jobs(const Matrix& matrix, const std::vector<std::string>& only);
std::string job_list(const Matrix& matrix, const std::vector<size_t>& jobs);

// What the jobs that are not finished will cost, by dry_run() of one of each kind.
// ready: sets threads, device and kernels, and returns the configuration to run.
std::string matrix_dry_run(const Matrix& matrix, const std::vector<size_t>& jobs,
                           const std::function<RunConfig(const RunConfig&)>& ready);

struct WorkOptions {
  std::vector<std::string>
      command;         // arguments of this program that compute a job, but for its name
  bool retry = false;  // failed jobs too, once
  bool wait = true;    // for jobs that others work on, to take over those that die
};
// Until nothing is left to do. Returns 0, or the exit code of the first failed job. Throws Stopped
// after the running job was stopped, and DiskError when the disk is full.
int work_on(const Matrix& matrix, const std::vector<size_t>& jobs, const WorkOptions& options);

// In the process of a job: the finished stages that it uses, linked (or copied) into its folder;
// and why it failed, for the process that waits for it.
void take_over_stages(const Matrix& matrix, const MatrixJob& job, const std::string& folder);
void report_failure(const Matrix& matrix, const MatrixJob& job, const std::string& why);

}  // namespace mtcki

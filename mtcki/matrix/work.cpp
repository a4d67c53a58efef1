#include "mtcki/matrix/work.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/matrix/claim.h"
#include "mtcki/matrix/table.h"
#include "mtcki/run/dry_run.h"
#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

constexpr auto kLook = std::chrono::milliseconds(50), kWait = std::chrono::milliseconds(2000);

// Jobs that take about the same time: METHOD.TEACHERS.DATA of a cell, teacher-NAME of a shared one.
std::string kind_of(const MatrixJob& job) {
  return job.name.substr(0, job.name.rfind(job.is_cell() ? '.' : '-'));
}

std::string reason_file(const Matrix& m, const MatrixJob& job) {
  return m.claims() + "/" + job.name + ".reason";
}

void sleep_for(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (stop_signal() == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(kLook);
}

// While this process holds a claim: "12 of 27 jobs finished, 3 at work elsewhere, about 1:02:00 left".
std::string progress_text(const Matrix& m, const std::vector<size_t>& jobs) {
  std::map<std::string, std::pair<double, int>> known;  // by kind, seconds and how many
  std::vector<std::string> open;
  size_t finished = 0;
  int running = 0;
  for (const size_t i : jobs) {
    const JobState s = job_state(m, i);
    running += s.kind == JobState::running;
    if (s.kind == JobState::finished) {
      ++finished;
      for (const std::string& kind : {kind_of(m.jobs[i]), std::string()}) {
        known[kind].first += s.seconds;
        known[kind].second += 1;
      }
    } else if (s.kind != JobState::failed) {
      open.push_back(kind_of(m.jobs[i]));
    }
  }
  double left = 0;
  for (const std::string& kind : open) {
    const auto it = known.count(kind) ? known.find(kind) : known.find("");
    if (it != known.end()) left += it->second.first / it->second.second;
  }
  std::string text = str(finished, " of ", jobs.size(), " jobs finished");
  if (running > 1) text += str(", ", running - 1, " at work elsewhere");
  if (finished > 0) text += str(", about ", duration_text(left / running), " left");
  return text;
}

// This program with the arguments that compute a job. It must not outlive this process, whose claim
// keeps others away.
pid_t start(const std::vector<std::string>& command, const std::string& job) {
  std::vector<std::string> arguments = command;
  arguments.push_back(job);
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid(), child = fork();
  if (child < 0) throw OutOfMemoryError("cannot start a process for a job of the matrix");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) execv("/proc/self/exe", argv.data());
  _exit(127);
}

// Waits for the process; returns its status as of waitpid().
int wait_for(pid_t child, Claim* claim) {
  bool told = false;
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return status;
    if (stop_signal() != 0 && !told) told = kill(child, SIGTERM) == 0;
    if (!claim->keep()) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      throw Error(
          "this process stood still for minutes, and another one took its job over; start "
          "it again");
    }
    std::this_thread::sleep_for(kLook);
  }
}

void compute(const Matrix& m, const MatrixJob& job, Claim claim, const WorkOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  std::error_code ec;
  fs::remove(reason_file(m, job), ec);
  const int status = wait_for(start(options.command, job.name), &claim);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  const std::string sha = config_sha256(job.config);
  if (WIFEXITED(status) && code == 0) {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    claim.close(fmt::format("finished {} {:.1f}", sha, taken.count()));
    return;
  }
  if (code > 128) throw Stopped{code - 128};  // which releases the claim
  std::string why = "it ended without saying why";
  if (WIFSIGNALED(status)) why = str("killed by signal ", WTERMSIG(status));
  if (data::file_exists(reason_file(m, job))) why = data::read_text(reason_file(m, job), 1 << 16);
  if (code == 6) throw DiskError(job.name + ": " + why);
  claim.close(str("failed ", sha, " ", code, " ", why));
  console::line(console::Level::error, job.name + ": " + why);
}

void open_folder(const Matrix& m) {
  std::error_code ec;
  if (!fs::exists(m.claims(), ec) && fs::exists(m.folder, ec) && !fs::is_empty(m.folder, ec))
    throw UsageError(str("\"", m.folder, "\" is neither empty nor the folder of a matrix; give it ",
                         "another name=... or out=... (nothing there was touched)"));
  data::make_directories(m.claims());
}

}  // namespace

JobState job_state(const Matrix& m, size_t number) {
  const MatrixJob& job = m.jobs[number];
  const ClaimState claim = read_claim(m.claims(), job.name);
  std::istringstream in(claim.text);
  std::string word, sha;
  in >> word >> sha;
  JobState s;
  s.claim = claim.text;
  if (claim.held) {
    int64_t process = 0;
    in >> process >> s.text;
    s.text = str("process ", process, " of ", s.text);
    s.kind = JobState::running;
  } else if (sha == config_sha256(job.config) && word == "finished" &&
             data::file_exists(job.folder() + "/manifest.json")) {  // else it was deleted since
    in >> s.seconds;
    s.kind = JobState::finished;
  } else if (sha == config_sha256(job.config) && word == "failed") {
    in >> s.exit_code;
    std::getline(in >> std::ws, s.text);
    s.kind = JobState::failed;
  } else {
    for (const MatrixJob::Use& use : job.uses)
      if (const JobState used = job_state(m, use.job); used.kind == JobState::failed) {
        s.kind = used.kind;
        s.exit_code = used.exit_code;
        s.text = m.jobs[use.job].name + ": " + used.text;
      }
  }
  return s;
}

std::vector<size_t> chosen_jobs(const Matrix& m, const std::vector<std::string>& only) {
  const auto matches = [&](const std::string& name) {
    return only.empty() || std::ranges::any_of(only, [&](const std::string& pattern) {
             return pattern.find_first_of("*?[") == std::string::npos
                        ? name.find(pattern) != std::string::npos
                        : fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
           });
  };
  std::set<size_t> chosen;
  for (size_t i = m.jobs.size(); i-- > 0;) {
    if (m.jobs[i].is_cell() && matches(m.jobs[i].name)) chosen.insert(i);
    if (chosen.count(i))
      for (const MatrixJob::Use& use : m.jobs[i].uses) chosen.insert(use.job);
  }
  if (chosen.empty()) throw UsageError("--only: matches none of the cells (mtcki matrix --list)");
  return {chosen.begin(), chosen.end()};
}

std::string job_list(const Matrix& m, const std::vector<size_t>& jobs) {
  std::string out;
  for (const size_t i : jobs) {
    const JobState s = job_state(m, i);
    const std::string more =
        s.kind == JobState::finished ? duration_text(s.seconds) : console::printable(s.text);
    out += fmt::format("{:<9} {:<44} {}\n", s.word(), m.jobs[i].name, more);
  }
  return out;
}

std::string matrix_dry_run(const Matrix& m, const std::vector<size_t>& jobs,
                           const std::function<RunConfig(const RunConfig&)>& ready) {
  struct Kind {
    size_t first = 0;
    int jobs = 0;
  };
  std::map<std::string, Kind> kinds;
  std::vector<std::string> order;
  for (const size_t i : jobs) {
    if (job_state(m, i).kind == JobState::finished) continue;
    const std::string kind = kind_of(m.jobs[i]);
    if (kinds[kind].jobs++ == 0) order.push_back(kind), kinds[kind].first = i;
  }
  std::string out;
  double total = 0;
  uint64_t memory = 0, disk = 0, free = 0;
  for (const std::string& kind : order) {
    const MatrixJob& job = m.jobs[kinds[kind].first];
    const DryRun e = dry_run(ready(job.config));
    // The other stages are taken over, or not done.
    std::set<std::string> counted = {"synthesis", "students", "metrics"};
    if (job.stage == "train") counted = {"teachers"};
    if (job.stage == "invert") counted = {"synthesis"};
    if (job.stage == "classifier") counted = {"classifier"};
    double seconds = 0;
    for (const DryRunStage& s : e.stages) seconds += counted.count(s.name) ? s.seconds : 0;
    const int n = kinds[kind].jobs;
    out += fmt::format("{:>4} x {:<36} {:>9} {:>11}\n", n, kind, duration_text(seconds),
                       duration_text(n * seconds));
    total += n * seconds;
    memory = std::max(memory, e.memory_bytes);
    disk += static_cast<uint64_t>(n) * e.disk_bytes;
    free = e.free_bytes;
  }
  return out + fmt::format(
                   "{:<43} {:>9} {:>11}\nmemory: about {} a process; disk: at most {} of {} "
                   "free\n",
                   "total of one process, what is finished left out", "", duration_text(total),
                   human_bytes(memory), human_bytes(disk), human_bytes(free));
}

int work_on(const Matrix& m, const std::vector<size_t>& jobs, const WorkOptions& options) {
  open_folder(m);
  std::set<size_t> tried;
  for (bool again = true; again;) {
    bool worked = false, waiting = false;
    for (const size_t i : jobs) {
      if (const int signal = stop_signal()) throw Stopped{signal};
      const MatrixJob& job = m.jobs[i];
      const JobState s = job_state(m, i);
      if (s.kind == JobState::finished) continue;
      if (s.kind == JobState::failed && (!options.retry || tried.count(i))) continue;
      const bool ready = std::ranges::all_of(job.uses, [&](const auto& use) {
        return job_state(m, use.job).kind == JobState::finished;
      });
      std::optional<Claim> claim;
      if (ready && s.kind != JobState::running) claim = Claim::take(m.claims(), job.name);
      if (!claim) {
        waiting = waiting || ready || s.kind != JobState::failed;
        continue;
      }
      if (const std::string& before = claim->before(); before != s.claim) {
        // Another process has had it since we looked.
        claim->close(before.starts_with("held ") ? "stopped" : std::string(before));
        waiting = true;
        continue;
      }
      tried.insert(i);
      console::info(str("matrix ", m.name, ": ", progress_text(m, jobs), "; now ", job.name));
      compute(m, job, std::move(*claim), options);
      write_tables(m);
      worked = true;
    }
    again = worked || (waiting && options.wait);
    if (!worked && again) sleep_for(kWait);
  }
  write_tables(m);
  for (const size_t i : jobs)
    if (const JobState s = job_state(m, i); s.kind == JobState::failed) return s.exit_code;
  return 0;
}

void take_over_stages(const Matrix& m, const MatrixJob& job, const std::string& folder) {
  for (const MatrixJob::Use& use : job.uses) {
    if (use.stage.empty()) continue;
    const fs::path from = fs::path(m.jobs[use.job].folder()) / use.stage;
    const fs::path to = fs::path(folder) / use.stage;
    if (data::file_exists((to / "done.json").string())) continue;
    const nlohmann::json marker = data::read_sealed_json((from / "done.json").string());
    if (!marker.is_object() || !marker.contains("files"))
      throw DataError(str("\"", from.string(), "\" is damaged; delete the folder \"",
                          m.jobs[use.job].folder(), "\" to make it again"));
    data::make_directories(to.string());
    std::vector<std::string> files;
    for (const auto& file : marker["files"].items()) files.push_back(file.key());
    files.emplace_back("done.json");  // last: it says that the others are there
    for (const std::string& file : files) {
      std::error_code ec;
      fs::remove(to / file, ec);
      fs::create_hard_link(from / file, to / file, ec);
      if (ec) fs::copy_file(from / file, to / file);
    }
  }
}

void report_failure(const Matrix& m, const MatrixJob& job, const std::string& why) {
  data::write_file_atomic(reason_file(m, job), why);
}

}  // namespace mtcki

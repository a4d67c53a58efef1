// The command line of `mtcki`: parsing, errors, exit codes.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <new>
#include <sstream>
#include <thread>

#include "data/formats/lost_mapping.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "tensor/comm.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"
#include "tensor/parallel.h"

namespace mtcki::cli {

namespace {

// All long flags of the command that was meant, for suggestions.
std::vector<std::string> flags_of(const CLI::App* app) {
  std::vector<std::string> out;
  for (const CLI::Option* o : app->get_options())
    for (const std::string& name : o->get_lnames()) out.push_back("--" + name);
  return out;
}

const CLI::App* innermost(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

// "mtcki data get"
std::string path_of(const CLI::App* app) {
  const CLI::App* parent = app->get_parent();
  return parent ? path_of(parent) + " " + app->get_name() : app->get_name();
}

int usage_error(const CLI::App* app, const std::string& text) {
  console::line(console::Level::error, text + " (see: " + path_of(app) + " --help)");
  return 2;
}

// Flags and words that no option took.
int unexpected(const CLI::App* app, const std::string& word) {
  static const std::map<std::string, std::string> habits{
      {"--resume", "resuming is the default; --fresh starts over"},
      {"-c", "write the configuration file's name alone"},
      {"--config", "write the configuration file's name alone"},
      {"bench", "write mtcki profile; against PyTorch: scripts/bench_compare"},
      {"convert", "write mtcki export weights"},
      {"fid", "a run with metrics.classifier_model measures FID-C"},
      {"synth", "write mtcki invert"},
      {"demo", "run scripts/demo, or mtcki run configs/demo.toml"},
      {"help", "write mtcki --help"},
      {"version", "write mtcki --version"}};
  if (const auto habit = habits.find(word); habit != habits.end())
    return usage_error(app, "\"" + word + "\": " + habit->second);
  if (word.size() > 1 && word[0] == '-') {
    const std::string flag = word.substr(0, word.find('='));
    return usage_error(app, "unknown flag \"" + flag + "\"" + did_you_mean(flag, flags_of(app)));
  }
  std::vector<std::string> names;
  for (const CLI::App* s : app->get_subcommands(nullptr)) names.push_back(s->get_name());
  if (!names.empty())
    return usage_error(app, "unknown command \"" + word + "\"" + did_you_mean(word, names));
  return usage_error(app, "unexpected argument \"" + word + "\"");
}

// Lines of CLI11's help that are longer than 80 columns, broken between words; what follows begins
// in the column of descriptions where the line begins with a flag.
std::string wrapped(const std::string& help) {
  constexpr size_t kWidth = 80, kDescription = 30;
  std::string out;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line); out += line + "\n") {
    // Of --flag,--no-flag{false}: what a flag stands for is no part of it.
    if (const size_t at = line.find("{false}"); at != std::string::npos) line.erase(at, 7);
    const size_t indent = line.starts_with("  ") ? kDescription : 0;
    for (size_t at; line.size() > kWidth; line = std::string(indent, ' ') + line.substr(at + 1)) {
      at = line.rfind(' ', kWidth);
      if (at == std::string::npos || at <= indent) break;
      out += line.substr(0, at) + "\n";
    }
  }
  return out;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app{
      "mtcki: trains classifiers, inverts them into images (multi-teacher contrastive\n"
      "knowledge inversion) and teaches students from nothing but those images."};
  app.name("mtcki");
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", [] {
    const BuildInfo b = build_info();
    return "mtcki " + b.version + " (" + b.git + ", " + b.build_type + ", " + b.compiler +
           ", oneDNN " + b.onednn + ", " + b.flags + ")";
  });
  bool quiet = false;
  app.add_flag("-q,--quiet", quiet, "only warnings, errors and results");
  app.fallthrough();

  CommandLine line{&app, {argv, argv + argc}, {}};
  for (const auto add :
       {add_runs, add_matrix, add_eval, add_inspect, add_summary, add_profile, add_roof, add_data,
        add_zoo, add_export, add_report, add_info, add_completion})
    add(&line);

  // Unknown flags are collected, so that the message can suggest the right one.
  const std::vector<CLI::App*> all = [&app] {
    std::vector<CLI::App*> list{&app};
    for (size_t i = 0; i < list.size(); ++i)
      for (CLI::App* s : list[i]->get_subcommands(nullptr)) list.push_back(s);
    return list;
  }();
  for (CLI::App* a : all) a->allow_extras();

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const CLI::App* asked = innermost(&app);
    const CLI::App* parent = asked->get_parent();
    std::fputs(wrapped(asked->help(parent ? path_of(parent) : "")).c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion& v) {
    std::puts(v.what());
    return 0;
  } catch (const CLI::ParseError& e) {
    for (const CLI::App* a : all)
      if (!a->remaining().empty()) return unexpected(innermost(&app), a->remaining().front());
    return usage_error(innermost(&app), parse_error(innermost(&app), e));
  }
  for (auto a = all.rbegin(); a != all.rend(); ++a)
    if (!(*a)->remaining().empty()) return unexpected(innermost(&app), (*a)->remaining().front());
  if (app.get_subcommands().empty()) {
    std::fputs(wrapped(app.help()).c_str(), stdout);
    return 2;
  }
  console::set_quiet(quiet);
  for (const Command& c : line.commands)
    if (c.app->parsed()) return c.run();
  throw Error("no command was parsed");
}

}  // namespace

}  // namespace mtcki::cli

// Says why and ends the process; in a job of several ranks, all of them.
static int fail(const std::string& text, int exit_code) {
  std::string who;
  if (mtcki::job_started()) {
    if (const int rank = mtcki::communicator().rank(); rank > 0) {
      // What all ranks met is said once, by the first, which ends the job meanwhile.
      std::signal(SIGTERM, SIG_DFL);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      who = mtcki::str("rank ", rank, ": ");
    }
  }
  mtcki::console::set_silent(false);
  mtcki::console::line(mtcki::console::Level::error, who + text);
  mtcki::abort_job(exit_code);
  return exit_code;
}

// A file that takes the number of a closed stdout or stderr would receive what is printed.
static void fill_standard_files() {
  for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR))
    if (fd > STDERR_FILENO) {
      close(fd);
      return;
    }
}

// What was printed must have arrived, or `mtcki eval --json > file` on a full disk seems well. A
// reader who has seen enough (`| head`) is no error.
static void flush_output() {
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return;
  const int error = errno;  // 0: of an earlier write
  pollfd reader{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR)) return;  // none is left
  if (error != EPIPE)
    throw mtcki::DiskError(std::string("cannot write the output: ") +
                           (error ? std::strerror(error) : "a write failed"));
}

int main(int argc, char** argv) {
  mtcki::bound_waiting(argv);
  fill_standard_files();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of a write, not the end of the run
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of a write, with a message
  mtcki::data::report_lost_mappings();
  try {
    const int exit_code = mtcki::cli::parse_and_run(argc, argv);
    flush_output();
    return exit_code;
  } catch (const mtcki::Stopped& s) {
    mtcki::console::line(mtcki::console::Level::info,
                         "Stopped and saved. Run the same command again to continue.");
    return 128 + s.signal;
  } catch (const mtcki::Error& e) {
    return fail(e.what(), e.exit_code());
  } catch (const std::bad_alloc&) {
    return fail("out of memory", 5);
  } catch (const std::filesystem::filesystem_error& e) {
    return fail(e.what(), 6);
  } catch (const std::exception& e) {
    return fail(std::string("internal: ") + e.what(), 1);
  }
}

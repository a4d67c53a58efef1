// report: the page of one run or several.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/report/report.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out;
  int64_t refresh = 0;
};

int report_command(const ReportOptions& o) {
  const std::string out =
      o.out.empty() ? (std::filesystem::path(o.runs.front()) / "report.html").string() : o.out;
  mtcki::ReportOptions options;
  options.refresh_seconds = o.refresh;
  write_report(o.runs, out, options);
  std::printf("%s\n", out.c_str());
  std::fflush(stdout);
  while (o.refresh > 0 && std::ranges::any_of(o.runs, is_running)) {
    std::this_thread::sleep_for(std::chrono::seconds(o.refresh));
    write_report(o.runs, out, options);
  }
  return 0;
}

}  // namespace

void add_report(CommandLine* line) {
  const auto o = std::make_shared<ReportOptions>();
  CLI::App* report =
      line->app->add_subcommand("report", "writes report.html of a run, or of several");
  report->add_option("runs", o->runs, "run folders")->required();
  report->add_option("--out", o->out, "file; default: report.html in the first folder");
  report
      ->add_option("--live", o->refresh,
                   "rewrite the page every N seconds until the runs end; it reloads itself")
      ->check(count());
  report->footer("Several seeds, one page: mtcki report runs/a runs/b runs/c --out seeds.html");
  line->commands.push_back({report, [o] { return report_command(*o); }});
}

}  // namespace mtcki::cli

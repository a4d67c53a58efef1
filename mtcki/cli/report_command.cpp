// report: the page of one run or several.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "mtcki/cli/commands.h"
#include "mtcki/report/report.h"
#include "tensor/error.h"

namespace mtcki::cli {

int report_command(const ReportOptions& o) {
  const std::string out =
      o.out.empty() ? (std::filesystem::path(o.runs.front()) / "report.html").string() : o.out;
  mtcki::ReportOptions options;
  options.refresh_seconds = o.refresh;
  write_report(o.runs, out, options);
  std::printf("%s\n", out.c_str());
  std::fflush(stdout);
  while (o.refresh > 0 && std::any_of(o.runs.begin(), o.runs.end(), is_running)) {
    std::this_thread::sleep_for(std::chrono::seconds(o.refresh));
    write_report(o.runs, out, options);
  }
  return 0;
}

}  // namespace mtcki::cli

// roof: what the machine could do, for mtcki profile.
#include <cstdio>

#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/console.h"
#include "mtcki/profile/roof.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct RoofCommandOptions {
  std::string out;
  RoofOptions roof;
  ComputeOptions compute;
};

int roof_command(const RoofCommandOptions& o) {
  RoofOptions options = o.roof;
  options.device = apply(o.compute);
  const Roof roof = measure_roof(options);
  std::fputs(roof_text(roof).c_str(), stdout);
  const std::string path = o.out.empty() ? default_roof_path(options.device) : o.out;
  write_roof(roof, path);
  std::printf("roof: %s\n", path.c_str());
  for (const std::string& line : roof.doubts())
    console::warn(str(line, "; something else ran meanwhile: measure again on an idle machine"));
  return 0;
}

}  // namespace

void add_roof(CommandLine* line) {
  const auto o = std::make_shared<RoofCommandOptions>();
  CLI::App* roof = line->app->add_subcommand(
      "roof", "measures bandwidth and arithmetic of this machine, for mtcki profile");
  roof->add_option("--out", o->out, "file; default: the cache folder");
  add_number(roof, "--megabytes", &o->roof.megabytes,
             "size of each test array in MB (four times as large on a GPU)", 1, 1 << 16);
  add_number(roof, "--gemm", &o->roof.gemm, "size of the products; 0: 2048, on a GPU 8192", 0,
             1 << 15);
  add_number(roof, "--repeats", &o->roof.repeats, "number of repetitions; the fastest is reported",
             1, 1000);
  add_compute(roof, &o->compute);
  line->commands.push_back({roof, [o] { return roof_command(*o); }});
}

}  // namespace mtcki::cli

// profile, profile diff, roof: where the time of a step goes, and what the machine could do.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "data/formats/atomic_file.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/profile/roof.h"
#include "mtcki/profile/table.h"
#include "mtcki/report/profile_page.h"
#include "mtcki/run/measure.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct ProfileOptions {
  MeasureOptions measure;
  std::string by = "layer", sweep;
  bool memory = false, wide = false;
  std::string roof, json, trace, csv, html;  // files
  int64_t rows = 20, depth = 0;
  ComputeOptions compute;
};

struct ProfileDiffOptions {
  std::string before, after, by = "layer", html;
  int64_t rows = 20;
};

// Where the memory was taken that one step, and what it is made of, holds at the peak. Of steps of
// their own: noting where costs time.
std::string memory_text(WorkloadOptions options, int64_t rows) {
  options.graph = false;  // a repeated step takes nothing
  const Device device = options.device;
  enable_memory_tags(true);
  {
    const Workload step = make_workload(options);
    step_times_us(step, 2, device);
    reset_peak_memory(device);
    step_times_us(step, 1, device);
  }
  const auto tags = peak_by_tag(device);
  enable_memory_tags(false);
  size_t total = 0;
  for (const auto& [tag, bytes] : tags) total += bytes;
  std::string text = "memory at the peak, by where it was taken: " + human_bytes(total) + "\n";
  int64_t left = rows > 0 ? rows : std::ssize(tags);
  for (const auto& [tag, bytes] : tags) {
    if (left-- == 0) break;
    text += fmt::format("{:>12} {:5.1f} %  {}\n", human_bytes(bytes),
                        100.0 * static_cast<double>(bytes) / static_cast<double>(total),
                        tag.empty() ? "(outside modules)" : tag);
  }
  return text;
}

void print_heading(const Profile& p, const WorkloadOptions& w) {
  put("{}, {} step, batch {}, {}x{}x{}, {}, {}: {:.3f} ms, {:.0f} img/s, peak memory {}\n\n",
      p.model, p.step, w.batch, w.channels, w.size, w.size, p.math,
      w.device.is_cpu() ? str(p.threads, p.threads == 1 ? " thread" : " threads")
                        : str(p.device, " (", p.machine, ")"),
      p.step_us * 1e-3, 1e6 * static_cast<double>(w.batch) / p.step_us, human_bytes(p.peak_memory));
}

void add_table(CLI::App* app, std::string* by, int64_t* rows) {
  add_choice(app, "--by", by, "lines by layer, op, module or stage",
             {"layer", "op", "module", "stage"});
  app->add_option("--rows", *rows, "lines of the table; 0: all")
      ->check(count())
      ->capture_default_str();
}

void write_page(const std::string& file, const std::string& html) {
  data::write_file_atomic(file, html);
  std::printf("page: %s (open in a browser)\n", file.c_str());
}

int sweep_command(const ProfileOptions& o, const MeasureOptions& measured) {
  if (!o.trace.empty() || !o.csv.empty() || o.memory)
    throw UsageError("--trace, --csv and --memory are of one profile; leave --sweep out");
  const Sweep sweep = measure_sweep(measured, parse_sweep(o.sweep));
  std::fputs(sweep_text(sweep, o.rows).c_str(), stdout);
  for (const SweepPoint& p : sweep.points)
    for (const std::string& line : p.profile.doubts())
      console::warn(str(sweep.what, " ", p.value, ": ", line));
  if (!o.json.empty()) data::write_file_atomic(o.json, to_json(sweep).dump(1) + "\n");
  if (!o.html.empty()) write_page(o.html, sweep_page(sweep));
  return 0;
}

int profile_command(const ProfileOptions& o) {
  MeasureOptions measured = o.measure;
  WorkloadOptions& w = measured.workload;
  const Device device = w.device = apply(o.compute);
  w.recompute = o.compute.recompute;
  w.precision = nn::parse_precision(o.compute.precision);
  std::string no_roof;
  const std::optional<Roof> roof = find_roof(device, o.roof, &no_roof);
  if (w.graph && (measured.level == "ops" || (measured.level == "auto" && device.is_cpu())))
    throw UsageError("--graph: a repeated graph has no times of its ops; add --level kernels");
  if (measured.level == "kernels" && device.is_cpu())
    throw UsageError("--level kernels: records of GPU kernels, but this runs on the CPU" +
                     (cuda::availability().usable ? std::string("; use --device cuda")
                                                  : ": " + cuda::availability().why));
  measured.roof = roof ? &*roof : nullptr;
  if (!o.sweep.empty()) {
    const int code = sweep_command(o, measured);
    if (!no_roof.empty()) console::info(no_roof);
    return code;
  }
  const std::string memory = o.memory ? memory_text(w, o.rows) : "";
  const Measured m = measure(measured);
  const Profile& p = m.profile;
  print_heading(p, w);
  const bool fit = !o.wide && isatty(STDOUT_FILENO);  // a file has room
  const size_t room = fit ? static_cast<size_t>(console::width(STDOUT_FILENO)) : 0;
  std::fputs(profile_text(p, profile_by(o.by), o.rows, room, o.depth).c_str(), stdout);
  if (!memory.empty()) std::printf("\n%s", memory.c_str());
  if (!no_roof.empty()) console::info(no_roof);
  for (const std::string& line : p.doubts()) console::warn(line);
  if (!o.json.empty()) data::write_file_atomic(o.json, to_json(p).dump(1) + "\n");
  if (!o.csv.empty()) data::write_file_atomic(o.csv, profile_csv(p));
  if (!o.html.empty()) write_page(o.html, profile_page(p));
  if (!o.trace.empty()) {
    data::write_file_atomic(o.trace, chrome_trace(m.events, m.kernels));
    std::printf("trace: %s (open in ui.perfetto.dev or chrome://tracing)\n", o.trace.c_str());
  }
  return 0;
}

int profile_diff_command(const ProfileDiffOptions& o) {
  const Profile a = read_profile(o.before), b = read_profile(o.after);
  const auto what = [](const Profile& p) {
    return str(p.model, " ", p.step, ", batch ", p.batch, ", ", p.device, ", ", p.version);
  };
  std::printf("before: %s\nafter:  %s\n\n", what(a).c_str(), what(b).c_str());
  std::fputs(profile_diff(a, b, profile_by(o.by), o.rows).c_str(), stdout);
  if (!o.html.empty()) write_page(o.html, profile_diff_page(a, b));
  return 0;
}

}  // namespace

void add_profile(CommandLine* line) {
  const auto o = std::make_shared<ProfileOptions>();
  const auto between = std::make_shared<ProfileDiffOptions>();
  MeasureOptions& m = o->measure;
  WorkloadOptions& w = m.workload;
  CLI::App* profile = line->app->add_subcommand(
      "profile", "what each op of a step costs, and how far it is from the machine's roof");
  profile->require_subcommand(0, 1);
  add_choice(profile, "--step", &w.step, "train, inference, inversion, synthesis or distill",
             workload_steps());
  profile->add_option("--model", w.model, "network; distill: the student")->capture_default_str();
  profile
      ->add_option("--teachers", w.teachers,
                   "inversion, synthesis, distill: teachers a,b,c; default: the model")
      ->delimiter(',');
  add_number(profile, "--batch", &w.batch, "images per step", 2, 65536);
  add_number(profile, "--steps", &m.steps, "steps measured, after a warm-up", 1, 10000);
  profile->add_flag("--graph", w.graph,
                    "on the GPU, with --level kernels: the step captured and repeated");
  add_choice(profile, "--level", &m.level,
             "ops: a time for each op; kernels: for each GPU kernel, through CUPTI; auto: on a "
             "GPU kernels of the captured step, where CUPTI is there, else ops",
             {"auto", "ops", "kernels"});
  profile->add_flag("--memory", o->memory,
                    "show which layers hold the memory at the peak of a step");
  profile->add_flag("--wide", o->wide,
                    "all columns of the table, also those that the terminal has no room for");
  profile->add_option("--roof", o->roof, "roof file; default: where mtcki roof writes");
  profile->add_option("--json", o->json, "write the profile, for mtcki profile diff");
  profile->add_option("--trace", o->trace, "write a trace for chrome://tracing or ui.perfetto.dev");
  profile->add_option("--csv", o->csv, "write all rows as CSV");
  profile->add_option("--html", o->html, "write a page: roofline, timeline, memory, ops, modules");
  profile->add_option("--sweep", o->sweep,
                      "cost against batch=8..1024 (doubled), batch=8,24,100, width=1..8 or "
                      "threads=1..16; with --json and --html");
  profile->add_option("--depth", o->depth, "--by module: parts of the path that count; 0: all")
      ->check(count())
      ->capture_default_str();
  add_input_shape(profile, &w.classes, &w.channels, &w.size);
  add_compute(profile, &o->compute);
  add_recompute(profile, &o->compute);
  add_table(profile, &o->by, &o->rows);
  profile->footer(
      "mtcki profile --model wrn16_1 --by op --json before.json    then, after a change,\n"
      "mtcki profile --model wrn16_1 --by op --json after.json\n"
      "mtcki profile diff before.json after.json --by op");
  CLI::App* diff = profile->add_subcommand("diff", "what changed between two profiles");
  diff->add_option("before", between->before, "file of mtcki profile --json")->required();
  diff->add_option("after", between->after, "another file of mtcki profile --json")->required();
  diff->add_option("--html", between->html, "write a page of both side by side");
  add_table(diff, &between->by, &between->rows);
  line->commands.push_back({diff, [between] { return profile_diff_command(*between); }});
  line->commands.push_back({profile, [profile, o] {
                              o->compute.device_given = profile->count("--device") > 0;
                              return profile_command(*o);
                            }});
}

}  // namespace mtcki::cli

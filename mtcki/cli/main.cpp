// The command line of `mtcki`. The only file that includes CLI11, which is slow to compile.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <thread>

#include "mtcki/cli/commands.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/run/workload.h"
#include "tensor/comm.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"
#include "tensor/parallel.h"

namespace mtcki::cli {

namespace {

const CLI::Range kCount(int64_t{0}, int64_t{1} << 40);

void add_compute(CLI::App* app, ComputeOptions* o) {
  app->add_option("--device", o->device, "auto, cpu or cuda[:INDEX]")->capture_default_str();
  app->add_option("--precision", o->precision,
                  "of convolutions and products: f32 (strict), tf32 or bf16")
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}))
      ->capture_default_str();
  app->add_option("--conv", o->conv,
                  "on the CPU: auto (Winograd where it is faster) or direct (never)")
      ->check(CLI::IsMember({"auto", "direct"}))
      ->capture_default_str();
  app->add_flag("--deterministic,!--no-deterministic", o->deterministic,
                "on the GPU: only kernels that repeat bit for bit (default)");
  app->add_flag("--autotune", o->autotune,
                "on the GPU: time the candidates for each convolution once, remember the fastest");
  app->add_option("--threads", o->threads, "CPU threads; 0: OMP_NUM_THREADS, or all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_recompute(CLI::App* app, ComputeOptions* o) {
  app->add_flag("--recompute,!--no-recompute", o->recompute,
                "networks that are trained keep less memory and compute outputs of batch norm "
                "again in the backward: the same bits");
}

void add_input_shape(CLI::App* app, int64_t* classes, int64_t* channels, int64_t* size) {
  app->add_option("--classes", *classes, "number of classes")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app->add_option("--channels", *channels, "input channels")
      ->check(CLI::IsMember({1, 3}))
      ->capture_default_str();
  app->add_option("--size", *size, "image height and width")
      ->check(CLI::IsMember({28, 32, 64}))
      ->capture_default_str();
}

void add_table(CLI::App* app, std::string* by, int64_t* rows) {
  app->add_option("--by", *by, "lines by layer, op, module or stage")
      ->check(CLI::IsMember({"layer", "op", "module", "stage"}))
      ->capture_default_str();
  app->add_option("--rows", *rows, "lines of the table; 0: all")
      ->check(kCount)
      ->capture_default_str();
}

const char kRunFooter[] =
    "Arguments are configuration files (TOML), applied in order, and KEY=VALUE overrides, e.g.\n"
    "  mtcki run configs/demo.toml seed=1 synthesis.g_steps=100 students.0.model=vgg8\n"
    "  mtcki run --help-config            every key with default, range and meaning\n"
    "The run folder is OUT/NAME (keys out and name). Finished stages are skipped, an interrupted "
    "one\n"
    "resumes exactly; Ctrl-C saves first (a second Ctrl-C leaves at once).\n"
    "Exit codes: 0 ok, 1 internal, 2 usage, 3 data, 4 numerics, 5 memory, 6 disk, 130/143 stopped.";

CLI::App* add_run(CLI::App* app, const char* name, const char* what, RunOptions* o) {
  CLI::App* s = app->add_subcommand(name, what);
  s->add_option("inputs", o->inputs, "configuration files and KEY=VALUE overrides")
      ->type_name("FILE|KEY=VALUE");
  s->add_flag("--fresh", o->fresh, "start over: empties the run folder first");
  s->add_flag("--check", o->check, "check configuration, files and models, compute nothing");
  if (std::string(name) == "run")
    s->add_flag(
        "--dry-run", o->dry_run,
        "run a few steps of each stage, print what time, memory and disk the whole will take, "
        "and leave nothing behind");
  s->add_flag("--print-config", o->print_config, "print the resolved configuration and stop");
  s->add_flag("--help-config", o->help_config, "print every key of the configuration and stop");
  s->add_option("--profile", o->profile,
                "profile the first N steps of each stage into profile/ of the run folder")
      ->check(kCount);
  s->add_flag("--no-tensorboard", o->no_tensorboard, "write no TensorBoard event files");
  add_compute(s, &o->compute);
  add_recompute(s, &o->compute);
  s->add_option("--graph", o->compute.graph,
                "on the GPU: capture steps and repeat them: auto (on), on or off")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  s->footer(kRunFooter);
  return s;
}

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

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

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

int parse_and_run(int argc, char** argv) {
  CLI::App app{
      "mtcki: trains classifiers, inverts them into images (multi-teacher contrastive knowledge\n"
      "inversion) and teaches students from nothing but those images."};
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

  RunOptions run_o[4];
  const char* const stages[4] = {"", "train", "invert", "distill"};
  CLI::App* run_apps[4] = {
      add_run(&app, "run", "the whole job: teachers, synthetic images, students, report",
              &run_o[0]),
      add_run(&app, "train", "only the teachers of a configuration", &run_o[1]),
      add_run(&app, "invert", "only the synthetic images (teachers must be there)", &run_o[2]),
      add_run(&app, "distill", "only the students (synthetic images must be there)", &run_o[3])};
  for (int i = 0; i < 4; ++i) {
    run_o[i].stage = stages[i];
    run_o[i].argv.assign(argv, argv + argc);
  }

  EvalOptions eval_o;
  CLI::App* eval = app.add_subcommand("eval", "accuracy of a weight file on a data set");
  eval->add_option("--weights", eval_o.weights, "file: .safetensors, or a PyTorch .pth/.th/.pt")
      ->required();
  eval->add_option("--model", eval_o.model,
                   "architecture (mtcki summary --list); default: the file's metadata");
  eval->add_option("--data", eval_o.data, "data set (mtcki data list)")->required();
  eval->add_option("--data-dir", eval_o.data_dir,
                   "folder of its files; default: $MTCKI_DATA_DIR/NAME or data/NAME");
  eval->add_option("--data-size", eval_o.data_size,
                   "imagefolder, tiny-imagenet: bring every image to N x N; 0: they have one size")
      ->check(CLI::Range(0, 4096));
  eval->add_option("--data-fit", eval_o.data_fit,
                   "with --data-size: crop (the centre square) or pad (all of it on black)")
      ->check(CLI::IsMember({"crop", "pad"}))
      ->capture_default_str();
  eval->add_option("--data-channels", eval_o.data_channels, "imagefolder: 1 reads grey, 3 colour")
      ->check(CLI::IsMember({1, 3}));
  eval->add_option("--skip-bad", eval_o.skip_bad,
                   "leave out up to n image files that cannot be read")
      ->check(kCount);
  eval->add_option("--mean", eval_o.mean,
                   "input normalisation a,b,c; default: the file's metadata, else the data set's")
      ->delimiter(',');
  eval->add_option("--std", eval_o.std, "likewise")->delimiter(',');
  eval->add_option("--split", eval_o.split, "test or train")
      ->check(CLI::IsMember({"test", "train"}))
      ->capture_default_str();
  eval->add_option("--limit", eval_o.limit, "first n images only; 0: all")->check(kCount);
  eval->add_option("--name-map", eval_o.name_map,
                   "renaming of foreign keys: torchvision, timm, datafree, kuangliu, weiaicunzai, "
                   "mmpretrain, or a file of lines \"old new\"");
  eval->add_option("--weights-key", eval_o.weights_key,
                   "where in the file the weights are, e.g. state_dict_ema or 0.model");
  eval->add_flag("--json", eval_o.json, "print {\"top1\":..,\"top5\":..,\"n\":..} in percent");
  add_compute(eval, &eval_o.compute);

  InspectOptions inspect_o;
  CLI::App* inspect = app.add_subcommand(
      "inspect", "whether a weight file's statistics belong to its network; needs no data");
  inspect->add_option("weights", inspect_o.weights, "file")->required();
  inspect->add_option("--model", inspect_o.model,
                      "architecture; default: the file's metadata, or every one that fits");
  inspect->add_option("--name-map", inspect_o.name_map, "as for eval");
  inspect->add_option("--weights-key", inspect_o.weights_key, "as for eval");
  inspect->add_option(
      "--data", inspect_o.data,
      "set it was trained on, for the normalisation; default: guessed by its shape");
  inspect->add_option("--mean", inspect_o.mean, "normalisation to judge")->delimiter(',');
  inspect->add_option("--std", inspect_o.std, "likewise")->delimiter(',');
  inspect->add_option("--size", inspect_o.size, "image height and width")
      ->check(CLI::Range(8, 1024))
      ->capture_default_str();
  add_compute(inspect, &inspect_o.compute);

  SummaryOptions summary_o;
  CLI::App* summary = app.add_subcommand("summary", "layers, parameters, MACs, memory of a model");
  summary->add_option("--model", summary_o.model, "classifier, e.g. wrn40_2");
  summary->add_option("--generator", summary_o.generator, "generator, e.g. cmi");
  summary->add_option("--nz", summary_o.nz, "generator: latent dimensions")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  summary->add_option("--ngf", summary_o.ngf, "generator: width")
      ->check(CLI::Range(1, 1 << 12))
      ->capture_default_str();
  summary->add_flag("--list", summary_o.list, "list the known models");
  summary->add_flag("--json", summary_o.json, "totals as JSON");
  add_input_shape(summary, &summary_o.classes, &summary_o.channels, &summary_o.size);

  ProfileOptions profile_o;
  CLI::App* profile = app.add_subcommand(
      "profile", "what each op of a step costs, and how far it is from the machine's roof");
  profile->require_subcommand(0, 1);
  profile->add_option("--step", profile_o.step, "train, inference, inversion, synthesis or distill")
      ->check(CLI::IsMember(workload_steps()))
      ->capture_default_str();
  profile->add_option("--model", profile_o.model, "network; distill: the student")
      ->capture_default_str();
  profile
      ->add_option("--teachers", profile_o.teachers,
                   "inversion, synthesis, distill: teachers a,b,c; default: the model")
      ->delimiter(',');
  profile->add_option("--batch", profile_o.batch, "images per step")
      ->check(CLI::Range(2, 65536))
      ->capture_default_str();
  profile->add_option("--steps", profile_o.steps, "steps measured, after a warm-up")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  profile->add_flag("--graph", profile_o.graph,
                    "on the GPU, with --level kernels: the step captured and repeated");
  profile
      ->add_option(
          "--level", profile_o.level,
          "ops: a time for each op; kernels: for each GPU kernel, through CUPTI; auto: on a "
          "GPU kernels of the captured step, where CUPTI is there, else ops")
      ->check(CLI::IsMember({"auto", "ops", "kernels"}))
      ->capture_default_str();
  profile->add_flag("--memory", profile_o.memory,
                    "where the memory was taken that a step holds at its peak");
  profile->add_option("--roof", profile_o.roof, "roof file; default: where mtcki roof writes");
  profile->add_option("--json", profile_o.json, "write the profile, for mtcki profile diff");
  profile->add_option("--trace", profile_o.trace,
                      "write a trace for chrome://tracing or ui.perfetto.dev");
  profile->add_option("--csv", profile_o.csv, "write all rows as CSV");
  add_input_shape(profile, &profile_o.classes, &profile_o.channels, &profile_o.size);
  add_compute(profile, &profile_o.compute);
  add_recompute(profile, &profile_o.compute);
  add_table(profile, &profile_o.by, &profile_o.rows);
  ProfileDiffOptions diff_o;
  CLI::App* diff = profile->add_subcommand("diff", "what changed between two profiles");
  diff->add_option("before", diff_o.before, "file of mtcki profile --json")->required();
  diff->add_option("after", diff_o.after, "likewise")->required();
  add_table(diff, &diff_o.by, &diff_o.rows);

  RoofCommandOptions roof_o;
  CLI::App* roof = app.add_subcommand(
      "roof", "measures bandwidth and arithmetic of this machine, for mtcki profile");
  roof->add_option("--out", roof_o.out, "file; default: the cache folder");
  roof->add_option("--megabytes", roof_o.megabytes, "of each array copied (GPU: four times that)")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  roof->add_option("--gemm", roof_o.gemm, "size of the products; 0: 2048, on a GPU 8192")
      ->check(CLI::Range(0, 1 << 15))
      ->capture_default_str();
  roof->add_option("--repeats", roof_o.repeats, "the best of them counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_compute(roof, &roof_o.compute);

  DataOptions data_o;
  CLI::App* data = app.add_subcommand("data", "data sets: list, verify, get");
  data->require_subcommand(1);
  data->add_subcommand("list", "known sets, where they are looked for, whether they are there");
  for (const char* name : {"verify", "get"}) {
    CLI::App* s = data->add_subcommand(
        name, name == std::string("verify") ? "check sizes, checksums and content of a set's files"
                                            : "download a set with curl and verify it");
    s->add_option("name", data_o.name, "data set (mtcki data list)")->required();
    s->add_option("--data-dir", data_o.dir, "its folder");
    if (name == std::string("get")) continue;
    s->add_option("--data-size", data_o.size, "as for eval")->check(CLI::Range(0, 4096));
    s->add_option("--data-fit", data_o.fit, "likewise")->check(CLI::IsMember({"crop", "pad"}));
    s->add_option("--skip-bad", data_o.skip_bad, "likewise")->check(kCount);
  }

  ExportWeightsOptions weights_o;
  ExportImagesOptions images_o;
  CLI::App* exp = app.add_subcommand("export", "weights or synthetic images in other formats");
  exp->require_subcommand(1);
  CLI::App* exp_weights =
      exp->add_subcommand("weights", "to .safetensors, .npz or .onnx (by the name of --out)");
  exp_weights->add_option("--weights", weights_o.weights, "file to read")->required();
  exp_weights->add_option("--model", weights_o.model, "architecture; default: the file's metadata");
  exp_weights->add_option("--name-map", weights_o.name_map, "as for eval");
  exp_weights->add_option("--weights-key", weights_o.weights_key, "as for eval");
  exp_weights
      ->add_option("--mean", weights_o.mean,
                   "input normalisation a,b,c, for the metadata; default: the file's")
      ->delimiter(',');
  exp_weights->add_option("--std", weights_o.std, "likewise")->delimiter(',');
  exp_weights->add_option("--out", weights_o.out, "file to write")->required();
  exp_weights->add_option("--opset", weights_o.opset, ".onnx: version of the operators, 13 to 17")
      ->check(CLI::Range(13, 17))
      ->capture_default_str();
  exp_weights->add_flag("--fold-bn", weights_o.fold_bn,
                        ".onnx: batch norms that follow a convolution become part of it");
  add_input_shape(exp_weights, &weights_o.classes, &weights_o.channels, &weights_o.size);
  CLI::App* exp_images = exp->add_subcommand("images", "a synthetic set as PNG files");
  exp_images->add_option("set", images_o.set, "run folder, or its synth/ folder")->required();
  exp_images
      ->add_option("--layout", images_o.layout,
                   "imagefolder: one folder per class; flat: all in one")
      ->check(CLI::IsMember({"imagefolder", "flat"}))
      ->capture_default_str();
  exp_images->add_option("--out", images_o.out, "folder to write, new or empty")->required();

  ReportOptions report_o;
  CLI::App* report = app.add_subcommand("report", "writes report.html of a run, or of several");
  report->add_option("runs", report_o.runs, "run folders")->required();
  report->add_option("--out", report_o.out, "file; default: report.html in the first folder");
  report->add_option("--live", report_o.refresh, "the page reloads itself every so many seconds")
      ->check(kCount);

  bool info_json = false;
  CLI::App* info = app.add_subcommand("info", "version, build, machine, kernels, data sets found");
  info->add_flag("--json", info_json, "as JSON");

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
    std::fputs(asked->help(parent ? path_of(parent) : "").c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion& v) {
    std::puts(v.what());
    return 0;
  } catch (const CLI::ParseError& e) {
    for (const CLI::App* a : all)
      if (!a->remaining().empty()) return unexpected(innermost(&app), a->remaining().front());
    return usage_error(innermost(&app), first_line(e.what()));
  }
  for (auto a = all.rbegin(); a != all.rend(); ++a)
    if (!(*a)->remaining().empty()) return unexpected(innermost(&app), (*a)->remaining().front());
  if (app.get_subcommands().empty()) {
    std::fputs(app.help().c_str(), stdout);
    return 2;
  }
  console::set_quiet(quiet);
  for (int i = 0; i < 4; ++i) {
    if (!run_apps[i]->parsed()) continue;
    const ComputeOptions& c = run_o[i].compute;
    const std::pair<const char*, std::string> flags[] = {
        {"device", c.device},
        {"threads", std::to_string(c.threads)},
        {"precision", c.precision},
        {"conv", c.conv},
        {"graph", c.graph},
        {"deterministic", c.deterministic ? "true" : "false"},
        {"recompute", c.recompute ? "true" : "false"},
        {"autotune", "true"}};
    for (const auto& [key, value] : flags)
      if (run_apps[i]->count(std::string("--") + key) > 0)
        run_o[i].compute_given.push_back(std::string(key) + "=" + value);
    run_o[i].compute.device_given = run_apps[i]->count("--device") > 0;
    return run_command(run_o[i]);
  }
  eval_o.compute.device_given = eval->count("--device") > 0;
  profile_o.compute.device_given = profile->count("--device") > 0;
  if (eval->parsed()) return eval_command(eval_o);
  if (inspect->parsed()) return inspect_command(inspect_o);
  if (summary->parsed()) return summary_command(summary_o);
  if (diff->parsed()) return profile_diff_command(diff_o);
  if (profile->parsed()) return profile_command(profile_o);
  if (roof->parsed()) return roof_command(roof_o);
  if (data->got_subcommand("list")) return data_list_command();
  if (data->got_subcommand("verify")) return data_verify_command(data_o);
  if (data->got_subcommand("get")) return data_get_command(data_o);
  weights_o.opset_given = exp_weights->count("--opset") > 0;
  if (exp_weights->parsed()) return export_weights_command(weights_o);
  if (exp_images->parsed()) return export_images_command(images_o);
  if (report->parsed()) return report_command(report_o);
  return info_command(info_json);
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
  try {
    const int exit_code = mtcki::cli::parse_and_run(argc, argv);
    flush_output();
    return exit_code;
  } catch (const mtcki::Stopped& s) {
    mtcki::console::line(mtcki::console::Level::info, "stopped; the same command continues");
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

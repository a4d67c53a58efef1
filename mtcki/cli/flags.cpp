// The flags of each command.
#include "mtcki/cli/flags.h"

#include <string>
#include <utility>

#include "mtcki/cli/commands.h"
#include "mtcki/cli/validators.h"
#include "mtcki/run/workload.h"

namespace mtcki::cli {

namespace {

void add_compute(CLI::App* app, ComputeOptions* o) {
  app->add_option("--device", o->device, "auto, cpu or cuda[:INDEX]")->capture_default_str();
  app->add_option("--precision", o->precision,
                  "number format in convolutions and matrix products: f32, tf32 or bf16")
      ->check(one_of({"f32", "tf32", "bf16"}))
      ->capture_default_str();
  app->add_option("--conv", o->conv,
                  "on the CPU: auto (Winograd where it is faster) or direct (never)")
      ->check(one_of({"auto", "direct"}))
      ->capture_default_str();
  app->add_flag("--deterministic,!--no-deterministic", o->deterministic,
                "on the GPU: only kernels that repeat bit for bit (default)");
  app->add_flag("--autotune", o->autotune,
                "on the GPU: time the candidates for each convolution once, remember the fastest");
  app->add_option("--threads", o->threads, "CPU threads; 0: OMP_NUM_THREADS, or all cores")
      ->check(range(0, 4096))
      ->capture_default_str();
}

void add_recompute(CLI::App* app, ComputeOptions* o) {
  app->add_flag("--recompute,!--no-recompute", o->recompute,
                "save memory: recompute batch-norm outputs in the backward pass (results are "
                "bit-identical)");
}

void add_input_shape(CLI::App* app, int64_t* classes, int64_t* channels, int64_t* size) {
  app->add_option("--classes", *classes, "number of classes")
      ->check(range(1, 1000000))
      ->capture_default_str();
  app->add_option("--channels", *channels, "input channels")
      ->check(one_of({"1", "3"}))
      ->capture_default_str();
  app->add_option("--size", *size, "image height and width")
      ->check(one_of({"28", "32", "64"}))
      ->capture_default_str();
}

void add_table(CLI::App* app, std::string* by, int64_t* rows) {
  app->add_option("--by", *by, "lines by layer, op, module or stage")
      ->check(one_of({"layer", "op", "module", "stage"}))
      ->capture_default_str();
  app->add_option("--rows", *rows, "lines of the table; 0: all")
      ->check(count())
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
      ->check(count());
  s->add_flag("--no-tensorboard", o->no_tensorboard, "write no TensorBoard event files");
  add_compute(s, &o->compute);
  add_recompute(s, &o->compute);
  s->add_option("--graph", o->compute.graph,
                "on the GPU: capture steps and repeat them: auto (on), on or off")
      ->check(one_of({"auto", "on", "off"}))
      ->capture_default_str();
  s->footer(kRunFooter);
  return s;
}

// The flags of the command line that stand for keys of the configuration.
std::vector<std::string> compute_given(const CLI::App* run, const ComputeOptions& c) {
  const std::pair<const char*, std::string> flags[] = {
      {"device", c.device},
      {"threads", std::to_string(c.threads)},
      {"precision", c.precision},
      {"conv", c.conv},
      {"graph", c.graph},
      {"deterministic", c.deterministic ? "true" : "false"},
      {"recompute", c.recompute ? "true" : "false"},
      {"autotune", "true"}};
  std::vector<std::string> out;
  for (const auto& [key, value] : flags)
    if (run->count(std::string("--") + key) > 0) out.push_back(std::string(key) + "=" + value);
  return out;
}

void add_runs(CLI::App* app, const std::vector<std::string>& argv, Commands* commands) {
  struct Row {
    const char *name, *stage, *what;
  };
  for (const Row& row :
       {Row{"run", "", "the whole job: teachers, synthetic images, students, report"},
        Row{"train", "train", "only the teachers of a configuration"},
        Row{"invert", "invert", "only the synthetic images (teachers must be there)"},
        Row{"distill", "distill", "only the students (synthetic images must be there)"}}) {
    const auto o = std::make_shared<RunOptions>();
    o->stage = row.stage;
    o->argv = argv;
    CLI::App* run = add_run(app, row.name, row.what, o.get());
    commands->push_back({run, [run, o] {
                           o->compute_given = compute_given(run, o->compute);
                           o->compute.device_given = run->count("--device") > 0;
                           return run_command(*o);
                         }});
  }
}

void add_eval(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<EvalOptions>();
  CLI::App* eval = app->add_subcommand("eval", "accuracy of a weight file on a data set");
  eval->add_option("--weights", o->weights, "file: .safetensors, or a PyTorch .pth/.th/.pt")
      ->required();
  eval->add_option("--model", o->model,
                   "architecture (mtcki summary --list); default: the file's metadata");
  eval->add_option("--data", o->data, "data set (mtcki data list)")->required();
  eval->add_option("--data-dir", o->data_dir,
                   "folder of its files; default: $MTCKI_DATA_DIR/NAME or data/NAME");
  eval->add_option("--data-size", o->data_size, kDataSize)->check(range(0, 4096));
  eval->add_option("--data-fit", o->data_fit, kDataFit)
      ->check(one_of({"crop", "pad"}))
      ->capture_default_str();
  eval->add_option("--data-channels", o->data_channels, "imagefolder: 1 reads grey, 3 colour")
      ->check(one_of({"1", "3"}));
  eval->add_option("--skip-bad", o->skip_bad, kSkipBad)->check(count());
  eval->add_option("--mean", o->mean,
                   "input normalisation a,b,c; default: the file's metadata, else the data set's")
      ->delimiter(',');
  eval->add_option("--std", o->std, "standard deviation of the normalisation a,b,c")
      ->delimiter(',');
  eval->add_option("--split", o->split, "test or train")
      ->check(one_of({"test", "train"}))
      ->capture_default_str();
  eval->add_option("--limit", o->limit, "first n images only; 0: all")->check(count());
  eval->add_option("--name-map", o->name_map, kNameMap);
  eval->add_option("--weights-key", o->weights_key, kWeightsKey);
  eval->add_flag("--json", o->json, "print {\"top1\":..,\"top5\":..,\"n\":..} in percent");
  add_compute(eval, &o->compute);
  commands->push_back({eval, [eval, o] {
                         o->compute.device_given = eval->count("--device") > 0;
                         return eval_command(*o);
                       }});
}

void add_inspect(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<InspectOptions>();
  CLI::App* inspect = app->add_subcommand(
      "inspect", "whether a weight file's statistics belong to its network; needs no data");
  inspect->add_option("weights", o->weights, "file")->required();
  inspect->add_option("--model", o->model,
                      "architecture; default: the file's metadata, or every one that fits");
  inspect->add_option("--name-map", o->name_map, kNameMap);
  inspect->add_option("--weights-key", o->weights_key, kWeightsKey);
  inspect->add_option(
      "--data", o->data,
      "set it was trained on, for the normalisation; default: guessed by its shape");
  inspect->add_option("--mean", o->mean, "mean a,b,c of the normalisation to judge")
      ->delimiter(',');
  inspect->add_option("--std", o->std, "standard deviation of the normalisation a,b,c")
      ->delimiter(',');
  inspect->add_option("--size", o->size, "image height and width")
      ->check(range(8, 1024))
      ->capture_default_str();
  add_compute(inspect, &o->compute);
  commands->push_back({inspect, [o] { return inspect_command(*o); }});
}

void add_summary(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<SummaryOptions>();
  CLI::App* summary = app->add_subcommand("summary", "layers, parameters, MACs, memory of a model");
  summary->add_option("--model", o->model, "classifier, e.g. wrn40_2");
  summary->add_option("--generator", o->generator, "generator, e.g. cmi");
  summary->add_option("--nz", o->nz, "generator: latent dimensions")
      ->check(range(1, 1 << 16))
      ->capture_default_str();
  summary->add_option("--ngf", o->ngf, "generator: width")
      ->check(range(1, 1 << 12))
      ->capture_default_str();
  summary->add_flag("--list", o->list, "list the known models");
  summary->add_flag("--json", o->json, "totals as JSON");
  add_input_shape(summary, &o->classes, &o->channels, &o->size);
  commands->push_back({summary, [o] { return summary_command(*o); }});
}

void add_profile(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<ProfileOptions>();
  const auto between = std::make_shared<ProfileDiffOptions>();
  CLI::App* profile = app->add_subcommand(
      "profile", "what each op of a step costs, and how far it is from the machine's roof");
  profile->require_subcommand(0, 1);
  profile->add_option("--step", o->step, "train, inference, inversion, synthesis or distill")
      ->check(one_of(workload_steps()))
      ->capture_default_str();
  profile->add_option("--model", o->model, "network; distill: the student")->capture_default_str();
  profile
      ->add_option("--teachers", o->teachers,
                   "inversion, synthesis, distill: teachers a,b,c; default: the model")
      ->delimiter(',');
  profile->add_option("--batch", o->batch, "images per step")
      ->check(range(2, 65536))
      ->capture_default_str();
  profile->add_option("--steps", o->steps, "steps measured, after a warm-up")
      ->check(range(1, 10000))
      ->capture_default_str();
  profile->add_flag("--graph", o->graph,
                    "on the GPU, with --level kernels: the step captured and repeated");
  profile
      ->add_option(
          "--level", o->level,
          "ops: a time for each op; kernels: for each GPU kernel, through CUPTI; auto: on a "
          "GPU kernels of the captured step, where CUPTI is there, else ops")
      ->check(one_of({"auto", "ops", "kernels"}))
      ->capture_default_str();
  profile->add_flag("--memory", o->memory,
                    "show which layers hold the memory at the peak of a step");
  profile->add_option("--roof", o->roof, "roof file; default: where mtcki roof writes");
  profile->add_option("--json", o->json, "write the profile, for mtcki profile diff");
  profile->add_option("--trace", o->trace, "write a trace for chrome://tracing or ui.perfetto.dev");
  profile->add_option("--csv", o->csv, "write all rows as CSV");
  add_input_shape(profile, &o->classes, &o->channels, &o->size);
  add_compute(profile, &o->compute);
  add_recompute(profile, &o->compute);
  add_table(profile, &o->by, &o->rows);
  CLI::App* diff = profile->add_subcommand("diff", "what changed between two profiles");
  diff->add_option("before", between->before, "file of mtcki profile --json")->required();
  diff->add_option("after", between->after, "another file of mtcki profile --json")->required();
  add_table(diff, &between->by, &between->rows);
  commands->push_back({diff, [between] { return profile_diff_command(*between); }});
  commands->push_back({profile, [profile, o] {
                         o->compute.device_given = profile->count("--device") > 0;
                         return profile_command(*o);
                       }});
}

void add_roof(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<RoofCommandOptions>();
  CLI::App* roof = app->add_subcommand(
      "roof", "measures bandwidth and arithmetic of this machine, for mtcki profile");
  roof->add_option("--out", o->out, "file; default: the cache folder");
  roof->add_option("--megabytes", o->megabytes,
                   "size of each test array in MB (four times as large on a GPU)")
      ->check(range(1, 1 << 16))
      ->capture_default_str();
  roof->add_option("--gemm", o->gemm, "size of the products; 0: 2048, on a GPU 8192")
      ->check(range(0, 1 << 15))
      ->capture_default_str();
  roof->add_option("--repeats", o->repeats, "number of repetitions; the fastest is reported")
      ->check(range(1, 1000))
      ->capture_default_str();
  add_compute(roof, &o->compute);
  commands->push_back({roof, [o] { return roof_command(*o); }});
}

void add_data(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<DataOptions>();
  CLI::App* data = app->add_subcommand("data", "data sets: list, verify, get");
  data->require_subcommand(1);
  CLI::App* list =
      data->add_subcommand("list", "known sets, where they are looked for, whether they are there");
  commands->push_back({list, data_list_command});
  for (const char* name : {"verify", "get"}) {
    CLI::App* s = data->add_subcommand(
        name, name == std::string("verify") ? "check sizes, checksums and content of a set's files"
                                            : "download a set with curl and verify it");
    s->add_option("name", o->name, "data set (mtcki data list)")->required();
    s->add_option("--data-dir", o->dir, "its folder");
    if (name == std::string("get")) {
      commands->push_back({s, [o] { return data_get_command(*o); }});
      continue;
    }
    commands->push_back({s, [o] { return data_verify_command(*o); }});
    s->add_option("--data-size", o->size, kDataSize)->check(range(0, 4096));
    s->add_option("--data-fit", o->fit, kDataFit)->check(one_of({"crop", "pad"}));
    s->add_option("--skip-bad", o->skip_bad, kSkipBad)->check(count());
  }
}

void add_export(CLI::App* app, Commands* commands) {
  const auto weights = std::make_shared<ExportWeightsOptions>();
  const auto images = std::make_shared<ExportImagesOptions>();
  CLI::App* exp = app->add_subcommand("export", "weights or synthetic images in other formats");
  exp->require_subcommand(1);
  CLI::App* exp_weights =
      exp->add_subcommand("weights", "to .safetensors, .npz or .onnx (by the name of --out)");
  exp_weights->add_option("--weights", weights->weights, "file to read")->required();
  exp_weights->add_option("--model", weights->model, "architecture; default: the file's metadata");
  exp_weights->add_option("--name-map", weights->name_map, kNameMap);
  exp_weights->add_option("--weights-key", weights->weights_key, kWeightsKey);
  exp_weights
      ->add_option("--mean", weights->mean,
                   "input normalisation a,b,c, for the metadata; default: the file's")
      ->delimiter(',');
  exp_weights->add_option("--std", weights->std, "standard deviation of the normalisation a,b,c")
      ->delimiter(',');
  exp_weights->add_option("--out", weights->out, "file to write")->required();
  exp_weights->add_option("--opset", weights->opset, ".onnx: version of the operators, 13 to 17")
      ->check(range(13, 17))
      ->capture_default_str();
  exp_weights->add_flag("--fold-bn", weights->fold_bn,
                        ".onnx: batch norms that follow a convolution become part of it");
  add_input_shape(exp_weights, &weights->classes, &weights->channels, &weights->size);
  CLI::App* exp_images = exp->add_subcommand("images", "a synthetic set as PNG files");
  exp_images->add_option("set", images->set, "run folder, or its synth/ folder")->required();
  exp_images
      ->add_option("--layout", images->layout,
                   "imagefolder: one folder per class; flat: all in one")
      ->check(one_of({"imagefolder", "flat"}))
      ->capture_default_str();
  exp_images->add_option("--out", images->out, "folder to write, new or empty")->required();
  commands->push_back({exp_weights, [exp_weights, weights] {
                         weights->opset_given = exp_weights->count("--opset") > 0;
                         return export_weights_command(*weights);
                       }});
  commands->push_back({exp_images, [images] { return export_images_command(*images); }});
}

void add_report(CLI::App* app, Commands* commands) {
  const auto o = std::make_shared<ReportOptions>();
  CLI::App* report = app->add_subcommand("report", "writes report.html of a run, or of several");
  report->add_option("runs", o->runs, "run folders")->required();
  report->add_option("--out", o->out, "file; default: report.html in the first folder");
  report
      ->add_option("--live", o->refresh,
                   "rewrite the page every N seconds until the runs end; it reloads itself")
      ->check(count());
  commands->push_back({report, [o] { return report_command(*o); }});
}

void add_matrix(CLI::App* app, const std::vector<std::string>& argv, Commands* commands) {
  const auto o = std::make_shared<MatrixOptions>();
  o->argv = argv;
  CLI::App* matrix = app->add_subcommand(
      "matrix", "methods x teachers x data x seeds: many runs by any number of processes; a table");
  matrix->add_option("inputs", o->inputs,
                     "matrix (docs/matrix.md), then files and KEY=VALUE for all its cells; or a "
                     "record.json, to show");
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
  commands->push_back({matrix, [o] { return matrix_command(*o); }});
}

void add_info(CLI::App* app, Commands* commands) {
  const auto json = std::make_shared<bool>(false);
  CLI::App* info = app->add_subcommand("info", "version, build, machine, kernels, data sets found");
  info->add_flag("--json", *json, "as JSON");
  commands->push_back({info, [json] { return info_command(*json); }});
}

}  // namespace

Commands add_commands(CLI::App* app, const std::vector<std::string>& argv) {
  Commands out;
  add_runs(app, argv, &out);
  add_matrix(app, argv, &out);
  for (const auto add : {add_eval, add_inspect, add_summary, add_profile, add_roof, add_data,
                         add_export, add_report, add_info})
    add(app, &out);
  return out;
}

}  // namespace mtcki::cli

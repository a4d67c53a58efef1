// What the subcommands of `mtcki` do once their flags are parsed. Each returns the exit code 0 or
// throws a typed exception; main.cpp turns those into one line and an exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mtcki/run/job.h"
#include "tensor/device.h"

namespace mtcki::cli {

struct ComputeOptions {
  std::string device = "auto";
  int64_t threads = 0;  // 0: OMP_NUM_THREADS, or all cores
  std::string precision = "f32", conv = "auto", graph = "auto";
  bool deterministic = true, autotune = false;
  bool device_given = false;  // "auto" by name, not by default
  bool recompute = false;
};
// Threads, device, choice of kernels. "auto" that was asked for and falls back to the CPU says why
// in one line; `mtcki info` always does.
Device apply(const ComputeOptions& options);
// "device: cuda:0 (NVIDIA H200); math: bf16", "device: cpu, 2 threads; math: f32 strict, direct
// convolutions"
std::string banner(Device device, const std::string& precision);

struct RunOptions {
  std::string stage;                // "" whole job; train | invert | distill
  std::vector<std::string> inputs;  // configuration files and key=value, in order
  std::vector<std::string> argv;
  ComputeOptions compute;
  std::vector<std::string> compute_given;  // as KEY=VALUE
  bool fresh = false, print_config = false, help_config = false, check = false, dry_run = false;
  bool no_tensorboard = false;
  int64_t profile = 0;  // steps of each stage; 0: none
};
int run_command(const RunOptions& options);
// Device, threads and kernels as the configuration says, and preflight(). The same configuration,
// with the device of this rank, which `job` receives too.
RunConfig ready_to_run(RunConfig config, RunJob* job, bool device_given = false);

struct MatrixOptions {
  std::vector<std::string> inputs;  // the matrix, then configuration files and key=value
  std::vector<std::string> argv;
  std::vector<std::string> only;  // patterns of names of cells
  std::string table;  // text | markdown | csv | html | json: only that, from what is there
  std::string job;    // this process computes one job, which its parent has claimed
  bool list = false, dry_run = false, retry = false, no_wait = false;
};
int matrix_command(const MatrixOptions& options);

// --mean and --std as they were given: as many, finite, std above 0; UsageError.
void check_normalization(const std::vector<double>& mean, const std::vector<double>& std);

struct EvalOptions {
  std::string model, weights, data, data_dir, data_fit = "crop", split = "test", name_map,
                                              weights_key;
  int64_t data_size = 0, data_channels = 0, skip_bad = 0;
  std::vector<double> mean, std;
  int64_t limit = 0;
  bool json = false;
  ComputeOptions compute;
};
int eval_command(const EvalOptions& options);

struct InspectOptions {
  std::string weights, model, name_map, weights_key, data;
  std::vector<double> mean, std;
  int64_t size = 32;
  ComputeOptions compute;
};
int inspect_command(const InspectOptions& options);

struct SummaryOptions {
  std::string model, generator;
  int64_t classes = 10, channels = 3, size = 32;
  int64_t nz = 256, ngf = 64;  // of the generator
  bool list = false, json = false;
};
int summary_command(const SummaryOptions& options);

struct ProfileOptions {
  std::string step = "train", model = "wrn16_1", by = "layer", level = "auto";
  bool graph = false, memory = false;
  std::string roof, json, trace, csv;  // files
  std::vector<std::string> teachers;
  int64_t batch = 128, steps = 5, rows = 20;
  int64_t classes = 10, channels = 3, size = 32;
  ComputeOptions compute;
};
int profile_command(const ProfileOptions& options);

struct ProfileDiffOptions {
  std::string before, after, by = "layer";
  int64_t rows = 20;
};
int profile_diff_command(const ProfileDiffOptions& options);

struct RoofCommandOptions {
  std::string out;
  int64_t megabytes = 256, gemm = 0;
  int repeats = 5;
  ComputeOptions compute;
};
int roof_command(const RoofCommandOptions& options);

struct DataOptions {
  std::string name, dir, fit = "crop";
  int64_t size = 0, skip_bad = 0;  // verify
};
int data_list_command();
int data_verify_command(const DataOptions& options);
int data_get_command(const DataOptions& options);

struct ExportWeightsOptions {
  std::string model, weights, name_map, weights_key, out;
  std::vector<double> mean, std;  // empty: those of the file
  int64_t classes = 10, channels = 3, size = 32;
  int64_t opset = 13;  // .onnx only, as fold_bn
  bool opset_given = false, fold_bn = false;
};
int export_weights_command(const ExportWeightsOptions& options);

struct ExportImagesOptions {
  std::string set, layout = "imagefolder", out;
};
int export_images_command(const ExportImagesOptions& options);

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out;
  int64_t refresh = 0;
};
int report_command(const ReportOptions& options);

int info_command(bool json);

}  // namespace mtcki::cli

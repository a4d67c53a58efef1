#include "mtcki/cli/flags.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "data/sets/dataset.h"
#include "mtcki/host/console.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/kernels/settings.h"
#include "tensor/nearest_name.h"
#include "tensor/parallel.h"

namespace mtcki::cli {

CLI::Validator one_of(const std::vector<std::string>& choices) {
  return CLI::Validator(
      [choices](std::string& value) {
        if (std::ranges::count(choices, value) > 0) return std::string();
        std::string text = "\"" + value + "\": must be ";
        for (size_t i = 0; i < choices.size(); ++i)
          text += (i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ") + choices[i];
        return text + did_you_mean(value, choices);
      },
      "");
}

CLI::Validator range(int64_t low, int64_t high) {
  return CLI::Validator(
      [low, high](std::string& value) {
        char* end = nullptr;
        errno = 0;
        const int64_t v = std::strtoll(value.c_str(), &end, 10);
        if (value.empty() || *end != 0) return "\"" + value + "\": must be a whole number";
        if (errno == 0 && v >= low && v <= high) return std::string();
        return value +
               (v < low ? str(": must be at least ", low) : str(": must be at most ", high));
      },
      "");
}

CLI::Validator count() { return range(0, int64_t{1} << 40); }

void add_choice(CLI::App* app, const char* name, std::string* value, const char* help,
                const std::vector<std::string>& choices) {
  app->add_option(name, *value, help)->check(one_of(choices))->capture_default_str();
}

void add_weight_names(CLI::App* app, std::string* name_map, std::string* weights_key) {
  app->add_option("--name-map", *name_map,
                  "renaming of foreign keys: torchvision, timm, datafree, kuangliu, weiaicunzai, "
                  "mmpretrain, or a file of lines \"old new\"");
  app->add_option("--weights-key", *weights_key,
                  "where in the file the weights are, e.g. state_dict_ema or 0.model");
}

void add_normalization(CLI::App* app, std::vector<double>* mean, std::vector<double>* std,
                       const char* mean_help) {
  app->add_option("--mean", *mean, mean_help)->delimiter(',');
  app->add_option("--std", *std, "standard deviation of the normalisation a,b,c")->delimiter(',');
}

const char kDataSize[] =
    "imagefolder, tiny-imagenet: bring every image to N x N; 0: they have one size";
const char kDataFit[] = "with --data-size: crop (the centre square) or pad (all of it on black)";
const char kSkipBad[] = "leave out up to n image files that cannot be read";

std::string parse_error(const CLI::App* app, const CLI::ParseError& e) {
  const std::string text = std::string(e.what()).substr(0, std::string(e.what()).find('\n'));
  if (dynamic_cast<const CLI::RequiredError*>(&e)) {
    std::string names;
    for (const CLI::App* s : app->get_subcommands(nullptr))
      names += (names.empty() ? "" : ", ") + s->get_name();
    for (const CLI::Option* o : app->get_options())
      if (o->get_required() && o->count() == 0)
        return o->get_name() + " is missing: " + o->get_description();
    if (!names.empty()) return "choose one of " + names;
  }
  // "--batch: 1: must be at least 2" is "--batch 1: ..." as elsewhere.
  const size_t colon = text.find(": ");
  const bool ours = dynamic_cast<const CLI::ValidationError*>(&e) != nullptr;
  return ours && colon != std::string::npos ? text.substr(0, colon) + text.substr(colon + 1) : text;
}

void add_compute(CLI::App* app, ComputeOptions* o) {
  app->add_option("--device", o->device, "auto, cpu or cuda[:INDEX]")->capture_default_str();
  add_choice(app, "--precision", &o->precision,
             "number format in convolutions and matrix products: f32, tf32 or bf16",
             {"f32", "tf32", "bf16"});
  add_choice(app, "--conv", &o->conv,
             "on the CPU: auto (Winograd where it is faster) or direct (never)",
             {"auto", "direct"});
  app->add_flag("--deterministic,!--no-deterministic", o->deterministic,
                "on the GPU: only kernels that repeat bit for bit (default)");
  app->add_flag("--autotune", o->autotune,
                "on the GPU: time the candidates for each convolution once, remember the fastest");
  add_number(app, "--threads", &o->threads, "CPU threads; 0: OMP_NUM_THREADS, or all cores", 0,
             4096);
  for (const char* name :
       {"--device", "--precision", "--conv", "--deterministic", "--autotune", "--threads"})
    app->get_option(name)->group("Where and how to compute");
}

void add_recompute(CLI::App* app, ComputeOptions* o) {
  app->add_flag("--recompute,!--no-recompute", o->recompute,
                "save memory: recompute batch-norm outputs in the backward pass (results are "
                "bit-identical)");
}

void add_input_shape(CLI::App* app, int64_t* classes, int64_t* channels, int64_t* size) {
  add_number(app, "--classes", classes, "number of classes", 1, 1000000);
  app->add_option("--channels", *channels, "input channels")
      ->check(one_of({"1", "3"}))
      ->capture_default_str();
  app->add_option("--size", *size, "image height and width")
      ->check(one_of({"28", "32", "64"}))
      ->capture_default_str();
}

Device apply(const ComputeOptions& options) {
  std::string why;
  const Device device = parse_device(options.device, &why);
  if (!why.empty() && options.device_given) console::info(why);
  set_num_threads(static_cast<int>(options.threads));
  math_settings().winograd = options.conv == "auto";
  math_settings().deterministic = options.deterministic;
  math_settings().autotune = options.autotune;
  return device;
}

std::string banner(Device device, const std::string& precision) {
  const std::string where =
      device.is_cuda() ? str(device.to_string(), " (", cuda::device_info(device.index).name, ")")
                       : str("cpu, ", num_threads(), num_threads() == 1 ? " thread" : " threads");
  return str("device: ", where, "; math: ", precision == "f32" ? "f32 strict" : precision,
             device.is_cpu() && !math_settings().winograd ? ", direct convolutions" : "");
}

void check_normalization(const std::vector<double>& mean, const std::vector<double>& std) {
  if (mean.size() != std.size())
    throw UsageError(str("--mean has ", mean.size(), " values, --std ", std.size(),
                         ": give both, one value per channel"));
  for (const double s : std)
    if (!(s > 0) || !std::isfinite(s))
      throw UsageError(str("--std ", s, ": must be above 0 and finite"));
  for (const double m : mean)
    if (!std::isfinite(m)) throw UsageError("--mean: must be finite");
  if (data::Normalization{mean, std}.is_of_bytes())
    throw UsageError(
        "--mean, --std: are those of images in 0..255; here images are in [0,1]: divide both by "
        "255");
}

}  // namespace mtcki::cli

// eval, summary, info: what a model or this program is.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "mtcki/cli/commands.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/class_order.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/evaluate.h"
#include "nn/summary.h"
#include "tensor/cuda/runtime.h"
#include "tensor/device.h"
#include "tensor/error.h"
#include "tensor/kernels/settings.h"
#include "tensor/parallel.h"

namespace mtcki::cli {

using nlohmann::json;

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

namespace {

void check_file(const std::string& path, const char* flag) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec))
    throw DataError(str(flag, " \"", path, "\": no such file"));
  if (std::filesystem::is_directory(path, ec))
    throw DataError(str(flag, " \"", path, "\": is a folder, expected a file"));
}

std::string join(const std::vector<double>& v) {
  std::string out;
  for (const double x : v) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%s%.4g", out.empty() ? "" : ",", x);
    out += buffer;
  }
  return out;
}

double two_decimals(double percent) { return std::round(percent * 100) / 100; }

}  // namespace

void check_normalization(const std::vector<double>& mean, const std::vector<double>& std) {
  if (mean.size() != std.size())
    throw UsageError(str("--mean has ", mean.size(), " values, --std ", std.size(),
                         ": give both, one value per channel"));
  for (const double s : std)
    if (!(s > 0) || !std::isfinite(s))
      throw UsageError(str("--std ", s, ": must be above 0 and finite"));
  for (const double m : mean)
    if (!std::isfinite(m)) throw UsageError("--mean: must be finite");
}

int eval_command(const EvalOptions& o) {
  // Everything that needs no data is checked before the data is read.
  check_normalization(o.mean, o.std);
  const data::DatasetInfo info = data::dataset_info(o.data);
  const Device device = apply(o.compute);
  check_file(o.weights, "--weights");
  nn::ModelSpec spec;
  spec.name = o.model;
  if (spec.name.empty()) {
    spec.name = read_model_card(data::read_state_file(o.weights, o.weights_key).metadata).spec.name;
    if (spec.name.empty())
      throw UsageError("--model: needed, because \"" + o.weights +
                       "\" does not say which architecture it holds (mtcki summary --list)");
  }
  data::ImageSet set;
  const auto load_set = [&] {
    set = data::load_dataset({o.data, o.data_dir, o.split, o.limit, 0, o.data_size, o.data_fit,
                              o.data_channels, o.skip_bad});
    if (!set.note.empty()) console::info(o.data + ": " + set.note);
    spec.in_channels = set.images.size(1);
    spec.image_size = set.images.size(2);
    spec.num_classes = set.num_classes();
  };
  const bool shape_known = info.image_size > 0 && info.num_classes > 0 && o.data_size == 0;
  if (shape_known) {
    spec.in_channels = info.channels;
    spec.image_size = info.image_size;
    spec.num_classes = info.num_classes;
  } else {
    load_set();
  }
  if (!o.mean.empty() && static_cast<int64_t>(o.mean.size()) != spec.in_channels)
    throw UsageError(str("--mean, --std: ", o.mean.size(), " values, but the images of ", o.data,
                         " have ", spec.in_channels,
                         spec.in_channels == 1 ? " channel" : " channels"));
  ModelCard card;
  std::vector<std::string> notes;
  auto net = load_model(o.weights, spec, o.name_map, &card, &notes, o.weights_key);
  if (shape_known) load_set();
  align_classes(*net, &card, set, &notes);
  for (const std::string& note : notes) console::info(o.weights + ": " + note);

  Teacher::Options options;
  options.name = spec.name;
  options.spec = spec;
  const char* source = "--mean, --std";
  if (!o.mean.empty()) {
    options.normalization = {o.mean, o.std};
  } else if (!card.normalization.mean.empty()) {
    options.normalization = card.normalization;
    source = "the file";
  } else {
    options.normalization = set.normalization;
    source = "the data set's default";
  }
  Teacher model(options, std::move(net));
  model.to(device);
  model.set_precision(nn::parse_precision(o.compute.precision));
  const Accuracy a = evaluate(model, set);
  if (const std::string hint = chance_hint(a, set.num_classes()); !hint.empty())
    console::warn(hint);
  if (o.json) {
    std::printf("%s\n", json{{"top1", two_decimals(a.top1)},
                             {"top5", two_decimals(a.top5)},
                             {"n", a.n},
                             {"model", spec.name},
                             {"data", o.data},
                             {"split", o.split},
                             {"mean", options.normalization.mean},
                             {"std", options.normalization.std}}
                            .dump()
                            .c_str());
    return 0;
  }
  std::printf("%s on %s (%s, %lld images): top-1 %.2f %%, top-5 %.2f %%\n", spec.name.c_str(),
              o.data.c_str(), o.split.c_str(), static_cast<long long>(a.n), a.top1, a.top5);
  std::printf("normalisation (%s): mean %s, std %s\n", source,
              join(options.normalization.mean).c_str(), join(options.normalization.std).c_str());
  return 0;
}

int summary_command(const SummaryOptions& o) {
  if (o.list) {
    std::puts("classifiers (--model):");
    for (const std::string& name : nn::classifier_names()) std::printf("  %s\n", name.c_str());
    std::puts("  wrn<d>_<k> for any d = 6n+4 and any k; vgg<8|11|13|16>_w<factor>");
    std::puts("generators (--generator):");
    for (const std::string& name : nn::generator_names()) std::printf("  %s\n", name.c_str());
    return 0;
  }
  if (o.model.empty() == o.generator.empty())
    throw UsageError("summary: give --model NAME, --generator NAME or --list");
  nn::Init init;
  std::unique_ptr<nn::Module> net;
  Shape input;
  if (!o.model.empty()) {
    net = nn::make_classifier({o.model, o.channels, o.size, o.classes}, init);
    input = {1, o.channels, o.size, o.size};
  } else {
    nn::GeneratorSpec spec;
    spec.name = o.generator;
    spec.nz = o.nz;
    spec.ngf = o.ngf;
    spec.channels = o.channels;
    spec.image_size = o.size;
    net = nn::make_generator(spec, init);
    input = {1, spec.nz};
  }
  const nn::ModelSummary s = nn::summarize(*net, input);
  if (o.json) {
    std::printf("%s\n", json{{"model", o.model.empty() ? o.generator : o.model},
                             {"parameters", s.parameters},
                             {"macs", s.macs},
                             {"parameter_bytes", s.parameter_bytes},
                             {"activation_bytes", s.activation_bytes},
                             {"batch_norms", s.batch_norms},
                             {"batch_norm_channels", s.batch_norm_channels},
                             {"state_keys", s.state_keys}}
                            .dump()
                            .c_str());
    return 0;
  }
  std::fputs(s.table().c_str(), stdout);
  return 0;
}

int info_command(bool as_json) {
  json sets = json::array();
  for (const std::string& name : data::dataset_names()) {
    std::error_code ec;
    const std::string dir = data::dataset_default_dir(name);
    const bool there = std::filesystem::is_directory(dir, ec);
    sets.push_back(
        {{"name", name}, {"found", there || data::dataset_info(name).procedural}, {"dir", dir}});
  }
  if (as_json) {
    json out = json::object();
    for (const auto& [label, value] : info_lines()) out[label] = value;
    out["datasets"] = sets;
    std::printf("%s\n", out.dump(1, ' ', false, json::error_handler_t::replace).c_str());
    return 0;
  }
  for (const auto& [label, value] : info_lines())
    std::printf("%-13s %s\n", label.c_str(), value.c_str());
  std::string found;
  for (const json& s : sets)
    if (s["found"].get<bool>()) found += (found.empty() ? "" : ", ") + s["name"].get<std::string>();
  std::printf("%-13s %s (mtcki data list)\n", "data sets", found.c_str());
  return 0;
}

}  // namespace mtcki::cli

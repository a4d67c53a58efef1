// inspect: what a weight file holds, and whether its statistics belong to the network it is said to
// be. Needs no data.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <set>

#include "data/formats/onnx_file.h"
#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/statistics_check.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace {

struct InspectOptions {
  std::string weights, model, name_map, weights_key, data;
  std::vector<double> mean, std;
  int64_t size = 0;
  ComputeOptions compute;
};

// Whether the file has a tensor of every size that the network has: cheaper than loading.
bool has_sizes(const data::StateFile& file, const nn::ModelSpec& spec) {
  std::multiset<std::string> sizes;
  for (const auto& [name, t] : file.tensors) sizes.insert(t.shape().to_string());
  nn::Init none = nn::Init::none();
  try {
    for (const auto& [name, t] : nn::make_classifier(spec, none)->state_dict()) {
      if (t.rank() == 0) continue;  // num_batches_tracked
      const auto it = sizes.find(t.shape().to_string());
      if (it == sizes.end()) return false;
      sizes.erase(it);
    }
  } catch (const Error&) {  // none for such images
    return false;
  }
  return true;
}

// The registry's networks into which the file loads, with the renaming that it needs.
std::vector<std::pair<std::string, std::string>> networks_of(const InspectOptions& o,
                                                             nn::ModelSpec spec,
                                                             const data::StateFile& file) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& name : nn::classifier_names()) {
    spec.name = name;
    if (!has_sizes(file, spec)) continue;
    std::vector<std::string> maps{o.name_map};
    if (o.name_map.empty()) maps.insert(maps.end(), name_presets().begin(), name_presets().end());
    for (const std::string& map : maps) try {
        load_model(o.weights, spec, map, nullptr, nullptr, o.weights_key);
        out.emplace_back(name, map);
        break;
      } catch (const Error&) {
        // Another network.
      }
  }
  return out;
}

// Classes from the last matrix, input channels from the first convolution.
void read_shape(const data::StateFile& file, nn::ModelSpec* spec) {
  bool first = true;
  for (const auto& [name, tensor] : file.tensors) {
    if (tensor.shape().rank() == 4 && first) {
      spec->in_channels = tensor.size(1);
      first = false;
    }
    if (tensor.shape().rank() == 2) spec->num_classes = tensor.size(0);
  }
}

// What an ONNX file declares; a free size stays as it is.
void read_onnx_shape(const std::string& path, nn::ModelSpec* spec) {
  const data::OnnxModel model = data::read_onnx(path);
  const auto take = [](const std::vector<data::OnnxValue>& values, size_t rank, size_t at,
                       int64_t* size) {
    if (!values.empty() && values[0].sizes.size() == rank && values[0].sizes[at] > 0)
      *size = values[0].sizes[at];
  };
  take(model.inputs, 4, data::has_channels_last(model) ? 3 : 1, &spec->in_channels);
  take(model.inputs, 4, 2, &spec->image_size);
  take(model.outputs, 2, 1, &spec->num_classes);
}

std::string guessed_set(const nn::ModelSpec& spec) {
  if (spec.in_channels == 1) return spec.num_classes == 10 ? "fashion-mnist" : "mnist";
  return spec.image_size >= 64 ? "tiny-imagenet" : spec.num_classes == 100 ? "cifar100" : "cifar10";
}

void print_layers(const std::vector<VariantFit>& fits) {
  std::printf("input of            ");
  for (const VariantFit& v : fits) std::printf("  %26s", v.model.c_str());
  std::printf("\n%-20s", "");
  for (size_t i = 0; i < fits.size(); ++i) std::printf("  %26s", "mean (sd)  variance (|ln|)");
  std::printf("\n");
  for (size_t l = 0; l < fits[0].fit.layers.size(); ++l) {
    std::printf("%-20s", fits[0].fit.layers[l].name.c_str());
    for (const VariantFit& v : fits)
      std::printf("  %12.3f  %12.3f", v.fit.layers[l].mean, v.fit.layers[l].variance);
    std::printf("\n");
  }
  std::printf("%-20s", "average");
  for (const VariantFit& v : fits) std::printf("  %12.3f  %12.3f", v.fit.mean, v.fit.variance);
  std::printf("\n");
}

void print_inputs(const InputMoments& seen, const std::string& set,
                  const std::vector<NormalizationFit>& fits) {
  put("trained on images of mean {:.3f}, std {:.3f} in normalised units; distance if they were "
      "{}:\n",
      fmt::join(seen.mean, ","), seen.std, set);
  for (const NormalizationFit& f : fits)
    put("  {:6.3f}  {:<22} mean {:.4g}, std {:.4g}\n", f.distance, f.name,
        fmt::join(f.normalization.mean, ","), fmt::join(f.normalization.std, ","));
}

int inspect_command(const InspectOptions& o) {
  check_normalization(o.mean, o.std);
  if (!o.data.empty()) data::dataset_info(o.data);  // there is such a set
  apply(o.compute);
  require_weights_file("weights", o.weights);
  const data::StateFile file = data::read_state_file(o.weights, o.weights_key);
  for (const std::string& note : file.notes) std::printf("%s\n", note.c_str());
  ModelCard card = read_model_card(o.weights, file.metadata);
  nn::ModelSpec spec = card.spec;
  if (spec.name.empty()) read_shape(file, &spec);
  if (data::is_onnx(o.weights)) read_onnx_shape(o.weights, &spec);
  if (o.size > 0) spec.image_size = o.size;
  if (!o.mean.empty() && std::ssize(o.mean) != spec.in_channels)
    throw UsageError(
        str("--mean, --std: ", o.mean.size(), " values for ", spec.in_channels, " input channels"));
  int64_t values = 0;
  for (const auto& [name, tensor] : file.tensors) values += tensor.numel();
  put("{}: {} tensors, {} values, {} input channels, {} classes\n", o.weights, file.tensors.size(),
      values, spec.in_channels, spec.num_classes);
  std::string map = o.name_map;
  if (!o.model.empty()) spec.name = o.model;
  if (spec.name.empty()) {
    const auto found = networks_of(o, spec, file);
    if (found.empty()) {
      std::string names;
      for (size_t i = 0; i < file.tensors.size() && i < 5; ++i)
        names += (i ? ", " : "") + file.tensors[i].first;
      throw DataError(str(o.weights, ": fits no network of the registry (tensors ", names,
                          ", ...): give --model, or --name-map for other names"));
    }
    std::printf("fits by names and shapes:");
    for (const auto& [name, with] : found)
      std::printf(" %s%s", name.c_str(), with.empty() ? "" : (" (name_map " + with + ")").c_str());
    std::printf("\n");
    spec.name = found[0].first;
    map = found[0].second;
  }
  ModelCard loaded;
  std::vector<std::string> notes;
  const auto net = load_model(o.weights, spec, map, &loaded, &notes, o.weights_key);
  if (card.normalization.mean.empty()) card.normalization = loaded.normalization;
  for (const std::string& note : notes) std::printf("%s\n", note.c_str());
  net->eval();
  const std::vector<VariantFit> fits = variant_fits(*net, spec);
  if (fits[0].fit.layers.empty()) {
    std::printf("%s has no batch norm: nothing to compare\n", spec.name.c_str());
    return 0;
  }
  print_layers(fits);
  const std::string set = o.data.empty() ? guessed_set(spec) : o.data;
  const data::Normalization pixels = data::dataset_pixels(set);
  data::Normalization given = data::dataset_info(set).normalization;
  if (!card.normalization.mean.empty()) given = card.normalization;
  if (!o.mean.empty()) given = {o.mean, o.std};
  const auto seen = input_moments(*net, spec);
  if (seen && pixels.mean.size() == seen->mean.size() && given.mean.size() == seen->mean.size())
    print_inputs(*seen, set, normalization_fits(*seen, pixels, given));
  const auto doubts = statistics_doubts(*net, spec, pixels, given);
  for (const std::string& doubt : doubts) console::warn(doubt);
  if (doubts.empty()) std::printf("nothing fits clearly better than %s\n", spec.name.c_str());
  return 0;
}

}  // namespace

void add_inspect(CommandLine* line) {
  const auto o = std::make_shared<InspectOptions>();
  CLI::App* inspect = line->app->add_subcommand(
      "inspect", "whether a weight file's statistics belong to its network; needs no data");
  inspect->add_option("weights", o->weights, "file")->required();
  inspect->add_option("--model", o->model,
                      "architecture; default: the file's metadata, or every one that fits");
  add_weight_names(inspect, &o->name_map, &o->weights_key);
  inspect->add_option(
      "--data", o->data,
      "set it was trained on, for the normalisation; default: guessed by its shape");
  add_normalization(inspect, &o->mean, &o->std, "mean a,b,c of the normalisation to judge");
  inspect->add_option("--size", o->size, "image height and width; default: the file's, else 32")
      ->check(range(8, 1024));
  add_compute(inspect, &o->compute);
  line->commands.push_back({inspect, [o] { return inspect_command(*o); }});
}

}  // namespace mtcki::cli

#include "mtcki/networks/model_file.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "data/formats/onnx_file.h"
#include "data/sets/digest.h"
#include "mtcki/networks/onnx_import.h"
#include "nn/state_dict.h"
#include "tensor/comm.h"

namespace mtcki {

namespace {

std::string comma_separated(const std::vector<double>& values) {
  std::ostringstream out;
  out << std::setprecision(17);
  for (size_t i = 0; i < values.size(); ++i) out << (i ? "," : "") << values[i];
  return out.str();
}

// NaN for what is no number.
std::vector<double> split(const std::string& text) {
  std::vector<double> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    char* end = nullptr;
    out.push_back(std::strtod(part.c_str(), &end));
    if (end == part.c_str()) out.back() = NAN;
  }
  return out;
}

std::string number(double v) {
  std::ostringstream out;
  out << std::setprecision(8) << v;
  return out.str();
}

// What would make every result of the network NaN.
void require_usable(const std::string& path, const nn::StateDict& state) {
  if (const std::string name = not_finite(state); !name.empty())
    throw DataError(str(path, ": ", name, " has values that are not finite (NaN or infinity): the ",
                        "training that wrote it failed, or the file is damaged"));
  for (const auto& [name, tensor] : state) {
    if (!name.ends_with("running_var")) continue;
    const std::vector<double> values = tensor.to(DType::f64).to_vector<double>();
    if (*std::min_element(values.begin(), values.end()) < 0)
      throw DataError(str(path, ": ", name, " has a negative variance: the file is damaged"));
  }
}

constexpr char kGraphKey[] = "mtcki.graph";

}  // namespace

std::string class_list(const std::vector<std::string>& names) {
  try {
    return names.empty() ? "" : nlohmann::json(names).dump();
  } catch (const nlohmann::json::type_error&) {
    return "";
  }
}

void write_model_file(const std::string& path, nn::Classifier& net, const ModelCard& card) {
  const nn::ModelSpec& s = card.spec;
  std::map<std::string, std::string> meta = {
      {"format", "pt"},
      {"mtcki.format_version", "1"},
      {"mtcki.arch", s.name},
      {"mtcki.num_classes", str(s.num_classes)},
      {"mtcki.input", str(s.in_channels, "x", s.image_size, "x", s.image_size)},
      {"mtcki.mean", comma_separated(card.normalization.mean)},
      {"mtcki.std", comma_separated(card.normalization.std)}};
  if (const auto* graph = dynamic_cast<const nn::GraphClassifier*>(&net))
    meta[kGraphKey] = graph_json(graph->spec());
  if (!card.config_sha256.empty()) meta["mtcki.config_sha256"] = card.config_sha256;
  if (card.top1 >= 0) meta["mtcki.top1"] = number(card.top1);
  if (card.top5 >= 0) meta["mtcki.top5"] = number(card.top5);
  if (const std::string names = class_list(card.classes); !names.empty())
    meta["mtcki.classes"] = names;
  if (communicator().is_root()) data::write_safetensors(path, net.state_dict(), meta);
  communicator().barrier();
}

ModelCard read_model_card(const std::string& path,
                          const std::map<std::string, std::string>& metadata) {
  ModelCard card;
  card.spec.name.clear();
  const auto get = [&](const char* key) {
    const auto it = metadata.find(key);
    return it == metadata.end() ? std::string() : it->second;
  };
  const auto require = [&](bool good, const char* key, const char* what) {
    if (!good)
      throw DataError(str(path, ": its metadata has ", key, " = \"", get(key), "\", which is no ",
                          what, "; write the file again, or take the entry out"));
  };
  card.spec.name = get("mtcki.arch");
  if (const std::string v = get("mtcki.num_classes"); !v.empty())
    require((card.spec.num_classes = std::strtoll(v.c_str(), nullptr, 10)) > 0, "mtcki.num_classes",
            "number of classes");
  if (const std::string v = get("mtcki.input"); !v.empty()) {
    char* end = nullptr;
    card.spec.in_channels = std::strtoll(v.c_str(), &end, 10);
    if (*end == 'x') card.spec.image_size = std::strtoll(end + 1, nullptr, 10);
    require(card.spec.in_channels > 0 && card.spec.image_size > 0, "mtcki.input",
            "CHANNELSxHEIGHTxWIDTH");
  }
  card.normalization.mean = split(get("mtcki.mean"));
  card.normalization.std = split(get("mtcki.std"));
  require(card.normalization.mean.size() == card.normalization.std.size(), "mtcki.std",
          "list as long as mtcki.mean");
  for (const double m : card.normalization.mean)
    require(std::isfinite(m), "mtcki.mean", "list of numbers");
  for (const double s : card.normalization.std)
    require(std::isfinite(s) && s > 0, "mtcki.std", "list of numbers above 0");
  if (const std::string v = get("mtcki.top1"); !v.empty())
    card.top1 = std::strtod(v.c_str(), nullptr);
  if (const std::string v = get("mtcki.top5"); !v.empty())
    card.top5 = std::strtod(v.c_str(), nullptr);
  card.config_sha256 = get("mtcki.config_sha256");
  const auto classes = data::parse_json(get("mtcki.classes"));
  if (classes.is_array())
    for (const auto& name : classes)
      card.classes.push_back(name.is_string() ? name.get<std::string>() : std::string());
  return card;
}

void require_weights_file(const std::string& who, const std::string& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec))
    throw DataError(str(who, " \"", path, "\": is a folder; name the file in it"));
  if (!std::filesystem::exists(path, ec))
    throw DataError(str(who, " \"", path, "\": no such file"));
}

std::string weights_sha256(const std::string& path) {
  std::string all;
  for (const std::string& part : data::state_file_parts(path)) all += data::sha256_file(part);
  return all.size() == 64 ? all : data::sha256_hex(all);
}

namespace {

// From an ONNX file, or from one of ours that has the network in its metadata.
std::unique_ptr<nn::Classifier> load_graph(const std::string& path, const nn::ModelSpec& spec,
                                           const std::string& name_map, ModelCard* card,
                                           std::vector<std::string>* notes,
                                           const std::string& key) {
  const bool is_onnx = data::is_onnx(path);
  if (spec.name != kGraphModel)
    throw UsageError(str(path, ": an ONNX file says itself what its network is; leave model = \"",
                         spec.name, "\" out"));
  if (!(name_map + key).empty())
    throw UsageError(str(path, ": name_map and weights_key are for state dicts, not for networks"));
  const data::StateFile file = data::read_state_file(path);
  if (card) *card = read_model_card(path, file.metadata);
  if (notes) notes->insert(notes->end(), file.notes.begin(), file.notes.end());
  if (is_onnx) {
    auto net = import_onnx(path, spec, notes);
    const InputScaling own = input_scaling(*net);
    if (!card || own.scale.empty() || !card->normalization.mean.empty()) return net;
    card->normalization = normalization_before(own);
    if (notes)
      notes->push_back(str("normalises its images itself: mean 0 and std ",
                           card->normalization.std[0] == 1 ? "1" : "1/255",
                           " before it, unless mean and std are given"));
    return net;
  }
  const auto graph = file.metadata.find(kGraphKey);
  if (graph == file.metadata.end())
    throw DataError(str(path, ": holds no network; model = \"", kGraphModel,
                        "\" is for .onnx files and what was made of them"));
  auto net = read_graph(path, graph->second, file.tensors);
  const nn::ModelSpec& own = net->spec().model;
  if (own.num_classes != spec.num_classes || own.in_channels != spec.in_channels ||
      own.image_size != spec.image_size)
    throw DataError(str(path, ": a network of ", own.num_classes, " classes for images of ",
                        own.in_channels, " x ", own.image_size, " x ", own.image_size, ", but ",
                        spec.num_classes, " classes and ", spec.in_channels, " x ", spec.image_size,
                        " x ", spec.image_size, " are needed"));
  return net;
}

// What else to try with a state dict that does not fit.
std::string advice(const data::StateFile& file, const nn::ModelSpec& spec,
                   const std::string& name_map, nn::Classifier& net) {
  const auto first = std::find_if(file.tensors.begin(), file.tensors.end(),
                                  [](const auto& t) { return t.second.rank() == 4; });
  std::string out;
  if (spec.in_channels == 3 && first != file.tensors.end() && first->second.size(1) == 1)
    out += "\n  it takes grey images: data.channels = 1 (mtcki eval: --data-channels 1)";
  if (std::any_of(file.tensors.begin(), file.tensors.end(),
                  [](const auto& t) { return t.first.ends_with("zero_point"); }))
    out += "\n  it is quantised: take the floating-point network that it was made from";
  if (!name_map.empty()) return out;
  for (const std::string& preset : name_presets()) try {
      net.load_state_dict(rename_keys(file.tensors, preset, net));
      return str(out, "\n  it fits with name_map = \"", preset, "\" (--name-map ", preset, ")");
    } catch (const DataError&) {
      // Another zoo's names.
    }
  return out;
}

}  // namespace

std::unique_ptr<nn::Classifier> load_model(const std::string& path, const nn::ModelSpec& spec,
                                           const std::string& name_map, ModelCard* card,
                                           std::vector<std::string>* notes,
                                           const std::string& key) {
  if (data::is_onnx(path) || spec.name == kGraphModel) {
    auto net = load_graph(path, spec, name_map, card, notes, key);
    require_usable(path, net->state_dict());
    return net;
  }
  const data::StateFile file = data::read_state_file(path, key);
  if (notes) notes->insert(notes->end(), file.notes.begin(), file.notes.end());
  const ModelCard found = read_model_card(path, file.metadata);
  if (card) *card = found;
  if (!found.spec.name.empty()) {
    const auto differs = [&](const char* what, const auto& has, const auto& needs) {
      throw DataError(str(path, ": holds a ", found.spec.name, " with ", has, " ", what, ", but ",
                          needs, " are needed; is it from another data set?"));
    };
    if (found.spec.num_classes != spec.num_classes)
      differs("classes", found.spec.num_classes, spec.num_classes);
    if (found.spec.in_channels != spec.in_channels)
      differs("input channels", found.spec.in_channels, spec.in_channels);
    if (found.spec.name != spec.name)
      throw DataError(str(path, ": holds a ", found.spec.name, ", not a ", spec.name,
                          "; set model = \"", found.spec.name, "\""));
    if (notes && file.metadata.count("mtcki.input") > 0 && found.spec.image_size != spec.image_size)
      notes->push_back(str("made for images of ", found.spec.image_size, " x ",
                           found.spec.image_size, ", asked about ones of ", spec.image_size, " x ",
                           spec.image_size));
  }
  nn::Init none = nn::Init::none();
  auto net = nn::make_classifier(spec, none);
  std::string unread;  // what a wanted tensor may have become
  for (const auto& [name, what] : file.unread)
    if (unread.size() < 300) unread += "\n  not read    " + name + ": " + what;
  try {
    net->load_state_dict(rename_keys(file.tensors, name_map, *net, notes), notes);
  } catch (const DataError& e) {
    throw DataError(str(path, ": does not fit ", spec.name, " with ", spec.num_classes,
                        " classes and ", spec.in_channels, " input channels: ", e.what(), unread,
                        advice(file, spec, name_map, *net)));
  }
  require_usable(path, net->state_dict());
  return net;
}

}  // namespace mtcki

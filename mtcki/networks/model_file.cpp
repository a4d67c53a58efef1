#include "mtcki/networks/model_file.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iomanip>
#include <set>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "tensor/comm.h"

namespace mtcki {

namespace {

constexpr uint64_t kMostNameMap = uint64_t{1} << 20;  // bytes

std::string join(const std::vector<double>& values) {
  std::ostringstream out;
  out << std::setprecision(17);
  for (size_t i = 0; i < values.size(); ++i) out << (i ? "," : "") << values[i];
  return out.str();
}

std::vector<double> split(const std::string& text) {
  std::vector<double> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');)
    out.push_back(std::strtod(part.c_str(), nullptr));
  return out;
}

std::string number(double v) {
  std::ostringstream out;
  out << std::setprecision(8) << v;
  return out.str();
}

// Replaces every occurrence of a whole dotted part of a name.
std::string replace_part(const std::string& name, const std::string& from, const std::string& to) {
  std::istringstream in(name);
  std::string out;
  for (std::string part; std::getline(in, part, '.');)
    out += (out.empty() ? "" : ".") + (part == from ? to : part);
  return out;
}

bool uses_part(const std::set<std::string>& names, const std::string& part) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) {
    return ("." + n + ".").find("." + part + ".") != std::string::npos;
  });
}

}  // namespace

void write_model_file(const std::string& path, nn::Classifier& net, const ModelCard& card) {
  const nn::ModelSpec& s = card.spec;
  std::map<std::string, std::string> meta = {
      {"format", "pt"},
      {"mtcki.format_version", "1"},
      {"mtcki.arch", s.name},
      {"mtcki.num_classes", str(s.num_classes)},
      {"mtcki.input", str(s.in_channels, "x", s.image_size, "x", s.image_size)},
      {"mtcki.mean", join(card.normalization.mean)},
      {"mtcki.std", join(card.normalization.std)}};
  if (!card.config_sha256.empty()) meta["mtcki.config_sha256"] = card.config_sha256;
  if (card.top1 >= 0) meta["mtcki.top1"] = number(card.top1);
  if (card.top5 >= 0) meta["mtcki.top5"] = number(card.top5);
  if (communicator().is_root()) data::write_safetensors(path, net.state_dict(), meta);
  communicator().barrier();
}

ModelCard read_model_card(const std::map<std::string, std::string>& metadata) {
  ModelCard card;
  card.spec.name.clear();
  const auto get = [&](const char* key) {
    const auto it = metadata.find(key);
    return it == metadata.end() ? std::string() : it->second;
  };
  card.spec.name = get("mtcki.arch");
  if (const std::string v = get("mtcki.num_classes"); !v.empty())
    card.spec.num_classes = std::strtoll(v.c_str(), nullptr, 10);
  if (const std::string v = get("mtcki.input"); !v.empty()) {
    char* end = nullptr;
    card.spec.in_channels = std::strtoll(v.c_str(), &end, 10);
    if (*end == 'x') card.spec.image_size = std::strtoll(end + 1, nullptr, 10);
  }
  card.normalization.mean = split(get("mtcki.mean"));
  card.normalization.std = split(get("mtcki.std"));
  if (const std::string v = get("mtcki.top1"); !v.empty())
    card.top1 = std::strtod(v.c_str(), nullptr);
  if (const std::string v = get("mtcki.top5"); !v.empty())
    card.top5 = std::strtod(v.c_str(), nullptr);
  card.config_sha256 = get("mtcki.config_sha256");
  return card;
}

data::NamedTensors rename_keys(const data::NamedTensors& tensors, const std::string& preset,
                               nn::Classifier& net) {
  if (preset.empty()) return tensors;
  std::set<std::string> wanted;
  for (const auto& [name, tensor] : net.state_dict()) wanted.insert(name);
  data::NamedTensors out = tensors;
  if (preset == "torchvision" || preset == "datafree" || preset == "kuangliu") {
    const std::vector<std::array<const char*, 2>> pairs = {{"shortcut", "downsample"},
                                                           {"linear", "fc"}};
    for (auto& [name, tensor] : out)
      for (const auto& [a, b] : pairs) {
        if (uses_part(wanted, a)) name = replace_part(name, b, a);
        if (uses_part(wanted, b)) name = replace_part(name, a, b);
      }
    return out;
  }
  if (!data::file_exists(preset))
    throw UsageError(str("name_map \"", preset,
                         "\" is neither torchvision, datafree, kuangliu nor a ",
                         "readable file of lines \"old new\""));
  std::istringstream in(data::read_text(preset, kMostNameMap));
  std::vector<std::pair<std::string, std::string>> map;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string from, to, more;
    if (!(words >> from >> to) || words >> more)
      throw UsageError(str(preset, ":", number, ": expected \"old new\", found \"", line, "\""));
    map.emplace_back(from, to);
  }
  for (auto& [name, tensor] : out)
    for (const auto& [from, to] : map)
      if (name.compare(0, from.size(), from) == 0) {
        name = to + name.substr(from.size());
        break;
      }
  return out;
}

std::unique_ptr<nn::Classifier> load_model(const std::string& path, const nn::ModelSpec& spec,
                                           const std::string& name_map, ModelCard* card,
                                           std::vector<std::string>* notes) {
  const data::StateFile file = data::read_state_file(path);
  const ModelCard found = read_model_card(file.metadata);
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
  }
  nn::Init init(0);
  auto net = nn::make_classifier(spec, init);
  try {
    net->load_state_dict(rename_keys(file.tensors, name_map, *net), notes);
  } catch (const DataError& e) {
    throw DataError(str(path, ": does not fit ", spec.name, " with ", spec.num_classes,
                        " classes and ", spec.in_channels, " input channels: ", e.what()));
  }
  return net;
}

}  // namespace mtcki

// rename_keys (model_file.h): other people's names for the tensors of the same networks.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/wrapped_weights.h"

namespace mtcki {

namespace {

using Names = std::set<std::string>;
constexpr uint64_t kMostNameMap = uint64_t{1} << 20;  // bytes

std::vector<std::string> parts_of(const std::string& name) {
  std::vector<std::string> out;
  std::istringstream in(name);
  for (std::string part; std::getline(in, part, '.');) out.push_back(part);
  return out;
}

std::string dotted(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ".") + part;
  return out;
}

// Replaces every occurrence of a whole dotted part of a name.
std::string replace_part(const std::string& name, const std::string& from, const std::string& to) {
  std::vector<std::string> parts = parts_of(name);
  std::replace(parts.begin(), parts.end(), from, to);
  return dotted(parts);
}

bool uses_part(const Names& names, const std::string& part) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) {
    return ("." + n + ".").find("." + part + ".") != std::string::npos;
  });
}

// The spellings of the shortcut and of the head: the one that the network uses is the target.
void respell(const Names& wanted, data::NamedTensors* tensors) {
  constexpr std::array<std::array<const char*, 2>, 2> kPairs = {
      {{"shortcut", "downsample"}, {"linear", "fc"}}};
  for (auto& [name, tensor] : *tensors)
    for (const auto& [a, b] : kPairs) {
      if (uses_part(wanted, a)) name = replace_part(name, b, a);
      if (uses_part(wanted, b)) name = replace_part(name, a, b);
    }
}

// VGGs as one list of layers, features.N: the k-th convolution and the k-th batch norm are those of
// the network's blocks.
void unroll_features(nn::Classifier& net, data::NamedTensors* tensors) {
  std::vector<std::string> convolutions, norms;
  for (const auto& [name, tensor] : net.state_dict()) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (tensor.shape().rank() == 4) convolutions.push_back(module);
    if (name.ends_with("running_mean")) norms.push_back(module);
  }
  std::map<int64_t, std::string> target;  // of features.N
  std::set<int64_t> with_conv, with_norm;
  const auto index = [](const std::string& name) -> int64_t {
    const std::vector<std::string> parts = parts_of(name);
    if (parts.size() != 3 || parts[0] != "features") return -1;
    return std::strtoll(parts[1].c_str(), nullptr, 10);
  };
  for (const auto& [name, tensor] : *tensors) {
    if (index(name) < 0) continue;
    if (tensor.shape().rank() == 4) with_conv.insert(index(name));
    if (name.ends_with("running_mean")) with_norm.insert(index(name));
  }
  if (with_conv.size() != convolutions.size() || with_norm.size() != norms.size()) return;
  size_t k = 0;
  for (const int64_t n : with_conv) target[n] = convolutions[k++];
  k = 0;
  for (const int64_t n : with_norm) target[n] = norms[k++];
  for (auto& [name, tensor] : *tensors)
    if (const auto it = target.find(index(name)); it != target.end())
      name = it->second + name.substr(name.rfind('.'));
}

// The DenseNet files that torchvision hands out have norm.1 for what it calls norm1.
void join_numbers(const Names& wanted, data::NamedTensors* tensors) {
  for (auto& [name, tensor] : *tensors) {
    std::vector<std::string> p = parts_of(name);
    if (p.size() < 3 || wanted.count(name)) continue;
    const size_t number = p.size() - 2;
    p[number - 1] += p[number];
    p.erase(p.begin() + static_cast<int64_t>(number));
    if (wanted.count(dotted(p))) name = dotted(p);
  }
}

// weiaicunzai/pytorch-cifar100: conv1.0, conv1.1, conv{2..5}_x.B.residual_function.{0,1,3,4,6,7}.
void rename_weiaicunzai(data::NamedTensors* tensors) {
  for (auto& [name, tensor] : *tensors) {
    std::vector<std::string> p = parts_of(name);
    if (p.size() == 3 && p[0] == "conv1") p = {p[1] == "0" ? "conv1" : "bn1", p[2]};
    if (p.size() > 2 && p[0].size() == 7 && p[0].starts_with("conv") && p[0].ends_with("_x"))
      p[0] = "layer" + std::to_string(p[0][4] - '0' - 1);
    if (p.size() == 5 && p[2] == "residual_function") {
      const std::map<std::string, std::string> layer = {
          {"0", "conv1"}, {"1", "bn1"}, {"3", "conv2"}, {"4", "bn2"}, {"6", "conv3"}, {"7", "bn3"}};
      if (const auto it = layer.find(p[3]); it != layer.end()) p = {p[0], p[1], it->second, p[4]};
    }
    // Of its VGGs, whose second dropout is missing, the last layer.
    if (p.size() == 3 && p[0] == "classifier" && p[1] == "5") p[1] = "6";
    name = dotted(p);
  }
}

// mmpretrain: backbone.X and head.fc.
void rename_mmpretrain(data::NamedTensors* tensors) {
  for (auto& [name, tensor] : *tensors)
    for (const char* prefix : {"backbone.", "head."})
      if (name.starts_with(prefix)) name = name.substr(std::string(prefix).size());
}

struct Line {
  std::string from, to;
  bool drops = false;
};

// "old new" renames what is called old or lies below it; "old" alone takes the part away; "old -"
// leaves these tensors out.
std::vector<Line> read_map(const std::string& path) {
  if (!data::file_exists(path))
    throw UsageError(str("name_map \"", path,
                         "\" is neither torchvision, timm, datafree, kuangliu, weiaicunzai, "
                         "mmpretrain nor a readable file of lines \"old new\""));
  std::istringstream in(data::read_text(path, kMostNameMap));
  std::vector<Line> map;
  std::string text;
  const auto component = [](std::string s) {
    while (s.ends_with('.')) s.pop_back();
    return s;
  };
  for (int number = 1; std::getline(in, text); ++number) {
    if (text.empty() || text[0] == '#') continue;
    std::istringstream words(text);
    std::string from, to, more;
    if (!(words >> from)) continue;
    words >> to;
    if (words >> more)
      throw UsageError(str(path, ":", number, ": expected \"old new\", found \"", text, "\""));
    map.push_back({component(from), component(to), to == "-"});
  }
  return map;
}

void apply_map(const std::vector<Line>& map, data::NamedTensors* tensors) {
  data::NamedTensors out;
  for (auto& [name, tensor] : *tensors) {
    const auto line = std::find_if(map.begin(), map.end(), [&name = name](const Line& l) {
      return name == l.from || name.starts_with(l.from + ".");
    });
    if (line == map.end()) {
      out.emplace_back(name, tensor);
    } else if (!line->drops) {
      std::string renamed = line->to + name.substr(line->from.size());
      if (renamed.starts_with('.')) renamed.erase(0, 1);
      out.emplace_back(renamed, tensor);
    }
  }
  *tensors = std::move(out);
}

// Wrappers around a network (torch.compile, DataParallel, Lightning, ...) put a part before all
// names.
void strip_prefixes(const Names& wanted, data::NamedTensors* tensors,
                    std::vector<std::string>* notes) {
  for (bool again = !tensors->empty(); again;) {
    again = false;
    for (const char* given :
         {"_orig_mod.", "module.", "model.", "net.", "network.", "backbone.", "encoder."}) {
      const std::string prefix = given;
      if (std::any_of(wanted.begin(), wanted.end(),
                      [&](const std::string& n) { return n.starts_with(prefix); }))
        continue;
      if (!std::all_of(tensors->begin(), tensors->end(),
                       [&](const auto& t) { return t.first.starts_with(prefix); }))
        continue;
      for (auto& [name, tensor] : *tensors) name.erase(0, prefix.size());
      if (notes)
        notes->push_back(str("removed the prefix '", prefix, "' from ", tensors->size(), " names"));
      again = true;
    }
  }
}

// The same wrappers around parts of a network put theirs in the middle of names: parts that no
// network of ours has, unless that would make one name of two.
void strip_inner(const Names& wanted, data::NamedTensors* tensors,
                 std::vector<std::string>* notes) {
  for (const std::string part :
       {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"}) {
    if (uses_part(wanted, part)) continue;
    Names distinct;
    size_t changed = 0;
    data::NamedTensors out = *tensors;
    for (auto& [name, tensor] : out) {
      std::vector<std::string> parts = parts_of(name);
      changed += std::erase(parts, part) > 0 ? 1 : 0;
      name = dotted(parts);
      distinct.insert(name);
    }
    if (changed == 0 || distinct.size() != out.size()) continue;
    *tensors = std::move(out);
    if (notes) notes->push_back(str("removed the part '", part, "' from ", changed, " names"));
  }
}

// Counters and copies that training tools leave among the weights.
void drop_tool_entries(const Names& wanted, data::NamedTensors* tensors,
                       std::vector<std::string>* notes) {
  std::string first;
  const auto is_tools = [&wanted](const std::string& name) {
    if (wanted.count(name)) return false;
    const std::string last = name.substr(name.rfind('.') + 1);
    return last == "total_ops" || last == "total_params" ||           // thop
           last == "n_averaged" ||                                    // torch.optim.swa_utils
           last == "num_updates" || name.starts_with("sub_block1.");  // TRADES' unused copy
  };
  const size_t before = tensors->size();
  std::erase_if(*tensors, [&](const auto& t) {
    if (!is_tools(t.first)) return false;
    if (first.empty()) first = t.first;
    return true;
  });
  if (notes && tensors->size() < before)
    notes->push_back(
        str("left out ", before - tensors->size(), " entries that are no weights (", first, ")"));
}

}  // namespace

const std::vector<std::string>& name_presets() {
  static const std::vector<std::string> names = {"torchvision", "timm",        "datafree",
                                                 "kuangliu",    "weiaicunzai", "mmpretrain"};
  return names;
}

data::NamedTensors rename_keys(const data::NamedTensors& tensors, const std::string& preset,
                               nn::Classifier& net, std::vector<std::string>* notes) {
  Names wanted;
  for (const auto& [name, tensor] : net.state_dict()) wanted.insert(name);
  data::NamedTensors out = tensors;
  drop_tool_entries(wanted, &out, notes);
  compose_weights(&out, notes);
  if (preset == "mmpretrain") rename_mmpretrain(&out);
  const bool known =
      std::find(name_presets().begin(), name_presets().end(), preset) != name_presets().end();
  if (!preset.empty() && !known) apply_map(read_map(preset), &out);
  strip_prefixes(wanted, &out, notes);
  strip_inner(wanted, &out, notes);
  if (preset == "weiaicunzai") rename_weiaicunzai(&out);
  if (preset == "kuangliu" || preset == "torchvision") unroll_features(net, &out);
  if (preset == "torchvision") join_numbers(wanted, &out);
  if (known) respell(wanted, &out);
  take_nested(net.state_dict(), &out, notes);
  return out;
}

}  // namespace mtcki

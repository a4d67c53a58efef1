// Model names -> networks.
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "nn/models/families.h"
#include "tensor/nearest_name.h"
#include "tensor/op_error.h"

namespace mtcki::nn {

namespace {

// RepDistiller's small ResNets of depth 6n+2: three stages of n blocks.
ResNetConfig small_resnet(int64_t depth, int64_t stem, std::vector<int64_t> widths) {
  ResNetConfig c;
  c.stem = stem;
  c.widths = std::move(widths);
  c.blocks.assign(3, (depth - 2) / 6);
  c.shortcut_name = "downsample";
  c.head_name = "fc";
  c.weights = ResNetConfig::Weights::kaiming_normal_fan_out;
  return c;
}

// The networks with a name of their own, in the order in which they are listed.
template <class Config>
using Table = std::vector<std::pair<std::string, Config>>;

template <class Config>
const Config* find(const Table<Config>& table, const std::string& name) {
  for (const auto& [known, config] : table)
    if (known == name) return &config;
  return nullptr;
}

Table<ResNetConfig> make_resnets() {
  ResNetConfig r18;
  r18.widths = {64, 128, 256, 512};
  r18.blocks = {2, 2, 2, 2};
  ResNetConfig r34 = r18;
  r34.blocks = {3, 4, 6, 3};
  Table<ResNetConfig> out = {{"resnet18", r18}, {"resnet34", r34}};
  for (size_t i = 0; i < 2; ++i) {
    auto [name, pooled] = out[i];
    pooled.stem_pool = true;
    pooled.shortcut_name = "downsample";
    pooled.head_name = "fc";
    out.emplace_back(name + "_pool", pooled);
  }
  for (const bool option_a : {false, true})
    for (const int64_t depth : {8, 14, 20, 32, 44, 56, 110}) {
      ResNetConfig c = small_resnet(depth, 16, {16, 32, 64});
      if (option_a) {
        c.shortcut = ResNetConfig::Shortcut::padded;
        c.head_name = "linear";
        c.weights = ResNetConfig::Weights::kaiming_normal_fan_in;
      }
      out.emplace_back(str("resnet", depth, option_a ? "_a" : ""), c);
    }
  out.emplace_back("resnet8x4", small_resnet(8, 32, {64, 128, 256}));
  out.emplace_back("resnet32x4", small_resnet(32, 32, {64, 128, 256}));
  return out;
}

const Table<ResNetConfig>& resnets() {
  static const Table<ResNetConfig> table = make_resnets();
  return table;
}

const Table<VggConfig>& vggs() {
  static const Table<VggConfig> table = {
      {"vgg8", {{{{64}, {128}, {256}, {512}, {512}}}}},
      {"vgg11", {{{{64}, {128}, {256, 256}, {512, 512}, {512, 512}}}}},
      {"vgg13", {{{{64, 64}, {128, 128}, {256, 256}, {512, 512}, {512, 512}}}}},
      {"vgg16", {{{{64, 64}, {128, 128}, {256, 256, 256}, {512, 512, 512}, {512, 512, 512}}}}},
  };
  return table;
}

struct WideName {
  int64_t depth = 0, k = 0;
};
// "wrn40_2"; any depth 6n+4 from 10 on and any widening factor.
std::optional<WideName> parse_wide(const std::string& name) {
  int depth = 0, k = 0, used = 0;
  if (std::sscanf(name.c_str(), "wrn%4d_%3d%n", &depth, &k, &used) != 2) return {};
  if (static_cast<size_t>(used) != name.size()) return {};
  if (depth < 10 || depth % 6 != 4 || k < 1) return {};
  return WideName{depth, k};
}

// "vgg8_w0.5" -> vgg8 with every width halved (rounded); "vgg8_pool" -> with five pools.
std::optional<VggConfig> parse_vgg(const std::string& full_name) {
  constexpr char kPool[] = "_pool";
  const bool pooled = full_name.ends_with(kPool);
  const std::string name =
      pooled ? full_name.substr(0, full_name.size() - std::string(kPool).size()) : full_name;
  const size_t at = name.find("_w");
  const VggConfig* known = find(vggs(), name.substr(0, at));
  if (known == nullptr) return {};
  VggConfig config = *known;
  config.five_pools = pooled;
  if (at == std::string::npos) return config;
  double factor = 0.0;
  int used = 0;
  const std::string text = name.substr(at + 2);
  if (std::sscanf(text.c_str(), "%8lf%n", &factor, &used) != 1) return {};
  if (static_cast<size_t>(used) != text.size() || !(factor > 0.0) || factor > 16.0) return {};
  for (auto& block : config.widths)
    for (int64_t& width : block)
      width = std::max<int64_t>(1, std::llround(static_cast<double>(width) * factor));
  return config;
}

}  // namespace

std::vector<std::string> classifier_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : resnets()) names.push_back(name);
  // Of the families that have a name for every size, the sizes that papers use.
  for (const char* name : {"wrn10_1", "wrn16_1", "wrn16_2", "wrn28_10", "wrn40_1", "wrn40_2"})
    names.emplace_back(name);
  for (const auto& [name, config] : vggs()) names.push_back(name);
  names.emplace_back("vgg8_w0.5");
  for (const auto& [name, config] : vggs()) names.push_back(name + "_pool");
  return names;
}

std::unique_ptr<Classifier> make_classifier(const ModelSpec& spec, Init& init) {
  if (spec.in_channels < 1 || spec.num_classes < 1 || spec.image_size < 8)
    throw UsageError(str("model ", spec.name,
                         ": needs at least 1 input channel, 1 class and 8 "
                         "pixels; got ",
                         spec.in_channels, ", ", spec.num_classes, ", ", spec.image_size));
  if (const ResNetConfig* resnet = find(resnets(), spec.name))
    return make_resnet(*resnet, spec, init);
  if (const auto wide = parse_wide(spec.name))
    return make_wide_resnet(wide->depth, wide->k, spec, init);
  if (const auto vgg = parse_vgg(spec.name)) return make_vgg(*vgg, spec, init);
  throw UsageError(str("unknown model \"", spec.name, "\"",
                       did_you_mean(spec.name, classifier_names()),
                       " (mtcki summary --list; also wrn<d>_<k> for d = 6n+4, "
                       "vgg<8|11|13|16>_w<factor>, and with _pool)"));
}

}  // namespace mtcki::nn

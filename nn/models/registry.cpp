// Model names -> networks.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <optional>
#include <utility>

#include "nn/models/families.h"
#include "tensor/nearest_name.h"
#include "tensor/op_error.h"

namespace mtcki::nn {

namespace {

// A name in its parts: "vgg8_w0.5_pool" is vgg8 with every width halved and a pool more.
struct Variant {
  double width = 1.0;
  Stem stem = Stem::small;
};
constexpr std::pair<const char*, Stem> kStems[] = {{"_pool", Stem::pool}, {"_in", Stem::imagenet}};

int64_t scaled(int64_t width, const Variant& v, int64_t multiple = 1) {
  const auto units =
      std::llround(static_cast<double>(width) * v.width / static_cast<double>(multiple));
  return multiple * std::max<int64_t>(1, units);
}
template <class Widths>
Widths all_scaled(Widths widths, const Variant& v, int64_t multiple = 1) {
  for (int64_t& width : widths) width = scaled(width, v, multiple);
  return widths;
}

// A row of the registry: a name, and which of its variants there are.
struct ModelRow {
  std::string name;
  bool scales = false;  // NAME_w<factor>
  std::vector<Stem> stems;
  std::function<std::unique_ptr<Classifier>(const Variant&, const ModelSpec&, Init&)> make;
};

// RepDistiller's small ResNets of depth 6n+2: three stages of n blocks.
ModelRow small_resnet(const std::string& name, int64_t depth, int64_t stem,
                      std::vector<int64_t> widths, bool option_a = false) {
  ResNetConfig c;
  c.stem_width = stem;
  c.widths = std::move(widths);
  c.blocks.assign(3, (depth - 2) / 6);
  c.shortcut_name = "downsample";
  c.head_name = "fc";
  c.weights = Weights::kaiming_normal_fan_out;
  if (option_a) {
    c.shortcut = ResNetConfig::Shortcut::padded;
    c.head_name = "linear";
    c.weights = Weights::kaiming_normal_fan_in;
  }
  return {name, false, {}, [c](const Variant&, const ModelSpec& spec, Init& init) {
            return make_resnet(c, spec, init);
          }};
}

// With the 3x3 stem alone the names are kuangliu's, otherwise torchvision's.
ModelRow large_resnet(const std::string& name, const std::vector<int64_t>& blocks,
                      bool bottleneck) {
  return {name,
          true,
          {Stem::pool, Stem::imagenet},
          [=](const Variant& v, const ModelSpec& spec, Init& init) {
            ResNetConfig c{.stem = v.stem,
                           .stem_width = scaled(64, v),
                           .bottleneck = bottleneck,
                           .widths = all_scaled(std::vector<int64_t>{64, 128, 256, 512}, v),
                           .blocks = blocks};
            if (v.stem != Stem::small) {
              c.shortcut_name = "downsample";
              c.head_name = "fc";
            }
            if (v.stem == Stem::imagenet) c.weights = Weights::kaiming_normal_fan_out;
            return make_resnet(c, spec, init);
          }};
}

// Convolutions per block; flat: torchvision's names. hidden: VggConfig's, for small images.
ModelRow vgg(const std::string& name, const std::array<size_t, 5>& depths, bool flat = false,
             int64_t hidden = 0) {
  std::vector<Stem> stems;
  if (!flat) stems.push_back(Stem::pool);
  if (flat && hidden == 0) stems.push_back(Stem::imagenet);
  return {name, true, stems, [=](const Variant& v, const ModelSpec& spec, Init& init) {
            VggConfig c;
            for (size_t b = 0; b < depths.size(); ++b)
              c.widths[b].assign(depths[b], scaled(std::min<int64_t>(512, 64 << b), v));
            c.five_pools = v.stem == Stem::pool;
            c.flat = flat;
            c.keeps_7x7 = v.stem == Stem::imagenet;
            const int64_t width = c.keeps_7x7 ? 4096 : hidden;
            c.hidden = width > 0 ? scaled(width, v) : 0;
            return make_vgg(c, spec, init);
          }};
}

ModelRow shufflenet(const std::string& name, const std::array<int64_t, 5>& widths) {
  return {name, true, {Stem::imagenet}, [=](const Variant& v, const ModelSpec& spec, Init& init) {
            return make_shufflenet_v2({v.stem, all_scaled(widths, v, 2)}, spec, init);
          }};
}

ModelRow repvgg(const std::string& name, const std::array<int64_t, 5>& widths) {
  return {name, true, {Stem::imagenet}, [=](const Variant& v, const ModelSpec& spec, Init& init) {
            return make_repvgg({v.stem, all_scaled(widths, v)}, spec, init);
          }};
}

std::vector<ModelRow> make_rows() {
  std::vector<ModelRow> out = {large_resnet("resnet18", {2, 2, 2, 2}, false),
                               large_resnet("resnet34", {3, 4, 6, 3}, false),
                               large_resnet("resnet50", {3, 4, 6, 3}, true)};
  for (const bool option_a : {false, true})
    for (const int64_t depth : {8, 14, 20, 32, 44, 56, 110})
      out.push_back(small_resnet(str("resnet", depth, option_a ? "_a" : ""), depth, 16,
                                 {16, 32, 64}, option_a));
  for (const int64_t depth : {8, 32})
    out.push_back(small_resnet(str("resnet", depth, "x4"), depth, 32, {64, 128, 256}));
  const std::pair<const char*, std::array<size_t, 5>> vggs[] = {{"vgg8", {1, 1, 1, 1, 1}},
                                                                {"vgg11", {1, 1, 2, 2, 2}},
                                                                {"vgg13", {2, 2, 2, 2, 2}},
                                                                {"vgg16", {2, 2, 3, 3, 3}},
                                                                {"vgg19", {2, 2, 4, 4, 4}}};
  for (const auto& [name, depths] : vggs) out.push_back(vgg(name, depths));
  for (const auto& [suffix, hidden] :
       {std::pair<const char*, int64_t>{"_bn", 0}, {"_bn_fc", 512}, {"_bn_fc4096", 4096}})
    for (const auto& [name, depths] : vggs)
      if (std::string(name) != "vgg8") out.push_back(vgg(str(name, suffix), depths, true, hidden));
  out.push_back({"mobilenet_v2",
                 true,
                 {Stem::imagenet},
                 [](const Variant& v, const ModelSpec& spec, Init& init) {
                   return make_mobilenet_v2(v.width, v.stem, spec, init);
                 }});
  out.push_back(shufflenet("shufflenet_v2_x0_5", {24, 48, 96, 192, 1024}));
  out.push_back(shufflenet("shufflenet_v2_x1_0", {24, 116, 232, 464, 1024}));
  out.push_back(shufflenet("shufflenet_v2_x1_5", {24, 176, 352, 704, 1024}));
  out.push_back(shufflenet("shufflenet_v2_x2_0", {24, 244, 488, 976, 2048}));
  out.push_back(
      {"densenet121",
       true,
       {Stem::pool, Stem::imagenet},
       [](const Variant& v, const ModelSpec& spec, Init& init) {
         return make_densenet({v.stem, scaled(32, v), scaled(64, v), {6, 12, 24, 16}}, spec, init);
       }});
  out.push_back(repvgg("repvgg_a0", {48, 48, 96, 192, 1280}));
  out.push_back(repvgg("repvgg_a1", {64, 64, 128, 256, 1280}));
  out.push_back(repvgg("repvgg_a2", {64, 96, 192, 384, 1408}));
  return out;
}

const std::vector<ModelRow>& rows() {
  static const std::vector<ModelRow> table = make_rows();
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

// The part behind a row's name: [_w<factor>][_pool|_in].
std::optional<Variant> parse_variant(std::string rest, const ModelRow& row) {
  Variant v;
  for (const auto& [suffix, stem] : kStems) {
    if (!rest.ends_with(suffix)) continue;
    if (std::ranges::find(row.stems, stem) == row.stems.end()) return {};
    v.stem = stem;
    rest.erase(rest.rfind('_'));
    break;
  }
  if (rest.empty()) return v;
  int used = 0;
  if (!row.scales || std::sscanf(rest.c_str(), "_w%8lf%n", &v.width, &used) != 1) return {};
  if (static_cast<size_t>(used) != rest.size() || !(v.width > 0.0) || v.width > 16.0) return {};
  return v;
}

}  // namespace

std::vector<std::string> classifier_names() {
  std::vector<std::string> names;
  for (const ModelRow& row : rows()) {
    names.push_back(row.name);
    for (const auto& [suffix, stem] : kStems)
      if (std::ranges::find(row.stems, stem) != row.stems.end()) names.push_back(row.name + suffix);
  }
  // Of the families that have a name for every size, the sizes that papers use.
  for (const char* name :
       {"wrn10_1", "wrn16_1", "wrn16_2", "wrn28_10", "wrn40_1", "wrn40_2", "vgg8_w0.5"})
    names.emplace_back(name);
  return names;
}

std::unique_ptr<Classifier> make_classifier(const ModelSpec& spec, Init& init) {
  if (spec.in_channels < 1 || spec.num_classes < 1 || spec.image_size < 8)
    throw UsageError(str("model ", spec.name,
                         ": needs at least 1 input channel, 1 class and 8 "
                         "pixels; got ",
                         spec.in_channels, ", ", spec.num_classes, ", ", spec.image_size));
  if (const auto wide = parse_wide(spec.name))
    return make_wide_resnet(wide->depth, wide->k, spec, init);
  for (const ModelRow& row : rows())
    if (spec.name.starts_with(row.name))
      if (const auto variant = parse_variant(spec.name.substr(row.name.size()), row))
        return row.make(*variant, spec, init);
  throw UsageError(str("unknown model \"", spec.name, "\"",
                       did_you_mean(spec.name, classifier_names()),
                       " (mtcki summary --list; also wrn<d>_<k> for d = 6n+4, and NAME_w<factor>, "
                       "before _pool or _in, of all but wrn and the small ResNets)"));
}

}  // namespace mtcki::nn

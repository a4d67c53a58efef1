#include "mtcki/export/onnx.h"

#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "autograd/functions.h"
#include "data/formats/atomic_file.h"
#include "mtcki/export/onnx_graph.h"
#include "mtcki/networks/model_file.h"
#include "nn/models/graph.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

// Writes what a network did in one pass, a node or two a link. Parameters become initializers under
// their checkpoint's names.
class Exporter {
 public:
  Exporter(nn::Classifier& net, std::vector<nn::TraceStep> steps, OnnxGraph* graph, bool fold_bn)
      : onnx(*graph), steps_(std::move(steps)), fold_bn_(fold_bn) {
    for (const auto& [path, module] : net.named_modules()) paths_[module] = path;
    for (size_t i = 0; i < steps_.size(); ++i) {
      readers_[steps_[i].input.impl().get()].push_back(i);
      if (const auto* join = std::get_if<nn::Join>(&steps_[i].link.what))
        readers_[join->shortcut->value().impl().get()].push_back(i);
      if (const auto* concat = std::get_if<nn::Concat>(&steps_[i].link.what))
        readers_[concat->more->value().impl().get()].push_back(i);
    }
  }

  void write(const Variable& images) {
    names_[images.impl().get()] = "images";
    for (at_ = 0; at_ < steps_.size(); ++at_) {
      const nn::TraceStep& step = steps_[at_];
      if (!fold_bn_ || !fold())
        names_[step.output.impl().get()] =
            std::visit([&](const auto& what) { return node(what); }, step.link.what);
    }
    if (steps_.empty() || name_of(steps_.back().output) != "logits")
      throw UsageError("onnx: the network does not end with a linear layer");
  }

  OnnxGraph& onnx;

 private:
  // A map x -> w * x + b of an earlier value x that has not been written yet: a convolution, and
  // the batch norm behind it. `options` of a batch norm alone, a 1x1 convolution: stride 1, no
  // padding.
  struct Map {
    Variable x;
    Tensor weight, bias;  // f64
    Conv2dOptions options;
    std::string name;
    nn::BatchNorm2d* norm = nullptr;  // and nothing else
  };

  // Takes the step into a map, if it can be.
  bool fold() {
    const nn::TraceStep& step = steps_[at_];
    std::optional<Map> map;
    if (const auto* conv = std::get_if<nn::Conv2d*>(&step.link.what))
      map = map_of(**conv);
    else if (const auto* norm = std::get_if<nn::BatchNorm2d*>(&step.link.what))
      map = map_of(**norm);
    else if (const auto* join = std::get_if<nn::Join>(&step.link.what))
      map = sum_of(step.input, join->shortcut->value());
    if (map) maps_[step.output.impl().get()] = std::move(*map);
    return map.has_value();
  }
  Map map_of(const nn::Conv2d& conv) const {
    return {steps_[at_].input, f64(conv.weight.data()).plain(),
            conv.bias != nullptr ? f64(conv.bias->data()) : Tensor(), conv.options(),
            paths_.at(&conv)};
  }
  Map map_of(nn::BatchNorm2d& norm) {
    const Tensor scale = div(f64(norm.weight.data()), sqrt(add(f64(norm.running_var), norm.eps())));
    const int64_t channels = scale.numel();
    Map map{steps_[at_].input, {}, {}, {}, paths_.at(&norm)};
    if (Map* conv = only_read_here(steps_[at_].input)) {
      map = take(conv);
      map.weight = mul(map.weight, scale.reshape({-1, 1, 1, 1}));
    } else {
      map.weight = Tensor::zeros({channels, channels, 1, 1}, DType::f64);
      for (int64_t c = 0; c < channels; ++c)
        map.weight.data<double>()[c * channels + c] = scale.data<double>()[c];
      map.norm = &norm;
    }
    const Tensor shift = plus(map.bias, mul(f64(norm.running_mean), -1.0));
    map.bias = add(mul(scale, shift), f64(norm.bias.data()));
    return map;
  }
  // Of two maps of the same value with the same strides (RepVGG's branches): kernels are added, the
  // smaller one in the middle of the larger.
  std::optional<Map> sum_of(const Variable& a, const Variable& b) {
    Map *large = only_read_here(a), *small = only_read_here(b);
    if (large == nullptr || small == nullptr) return {};
    if (large->weight.size(2) < small->weight.size(2)) std::swap(large, small);
    const Conv2dOptions &o = large->options, &p = small->options;
    const int64_t k = large->weight.size(2), border = (k - small->weight.size(2)) / 2;
    const bool fits =
        large->x.impl() == small->x.impl() && o.groups == 1 && p.groups == 1 &&
        o.stride == p.stride && o.dilation == std::array<int64_t, 2>{1, 1} &&
        p.dilation == o.dilation && k == small->weight.size(2) + 2 * border &&
        k == large->weight.size(3) && small->weight.size(2) == small->weight.size(3) &&
        o.padding[0] == p.padding[0] + border && o.padding[1] == p.padding[1] + border;
    if (!fits) return {};
    Map sum = take(large);
    const Map added = take(small);
    const auto pad = [&](const Tensor& w, int dim) {
      Shape zeros = w.shape();
      zeros.set(dim, border);
      const Tensor edge = Tensor::zeros(zeros, DType::f64);
      return border > 0 ? cat(std::vector<Tensor>{edge, w, edge}, dim) : w;
    };
    sum.weight = add(sum.weight, pad(pad(added.weight, 2), 3));
    sum.bias = plus(sum.bias, added.bias);
    sum.norm = nullptr;
    return sum;
  }
  // The map of a value that this step alone reads.
  Map* only_read_here(const Variable& v) {
    const auto it = maps_.find(v.impl().get());
    return it != maps_.end() && readers_[v.impl().get()] == std::vector<size_t>{at_} ? &it->second
                                                                                     : nullptr;
  }
  static Tensor plus(const Tensor& a, const Tensor& b) {  // undefined: 0
    return !a.defined() ? b : !b.defined() ? a : add(a, b);
  }
  static Map take(Map* map) { return std::exchange(*map, Map()); }
  std::string write(const Map& map) {
    if (map.norm != nullptr) return norm_node(*map.norm, name_of(map.x));
    std::vector<std::string> inputs = {name_of(map.x),
                                       onnx.initializer(map.weight, map.name + ".weight")};
    if (map.bias.defined()) inputs.push_back(onnx.initializer(map.bias, map.name + ".bias"));
    return conv_node(map.options, map.weight.shape(), inputs);
  }

  std::string node(nn::Conv2d* conv) {
    const std::string x = input(), name = paths_.at(conv);
    std::vector<std::string> inputs = {x, onnx.initializer(conv->weight.data(), name + ".weight")};
    if (conv->bias != nullptr)
      inputs.push_back(onnx.initializer(conv->bias->data(), name + ".bias"));
    return conv_node(conv->options(), conv->weight.shape(), inputs);
  }
  std::string conv_node(const Conv2dOptions& o, const Shape& weight,
                        const std::vector<std::string>& inputs) {
    std::vector<data::ProtoWriter> attributes = {
        OnnxGraph::integers("kernel_shape", {weight[2], weight[3]}),
        OnnxGraph::integers("strides", {o.stride[0], o.stride[1]}),
        OnnxGraph::integers("pads", {o.padding[0], o.padding[1], o.padding[0], o.padding[1]})};
    if (o.groups != 1) attributes.push_back(OnnxGraph::integer("group", o.groups));
    if (o.dilation[0] != 1 || o.dilation[1] != 1)
      attributes.push_back(OnnxGraph::integers("dilations", {o.dilation[0], o.dilation[1]}));
    return onnx.node("Conv", inputs, attributes);
  }
  std::string node(nn::BatchNorm2d* norm) { return norm_node(*norm, input()); }
  std::string norm_node(const nn::BatchNorm2d& norm, const std::string& x) {
    const std::string name = paths_.at(&norm);
    return onnx.node("BatchNormalization",
                     {x, onnx.initializer(norm.weight.data(), name + ".weight"),
                      onnx.initializer(norm.bias.data(), name + ".bias"),
                      onnx.initializer(norm.running_mean, name + ".running_mean"),
                      onnx.initializer(norm.running_var, name + ".running_var")},
                     {OnnxGraph::real("epsilon", static_cast<float>(norm.eps()))});
  }
  std::string node(nn::Linear* layer) {
    const std::string name = paths_.at(layer);
    std::vector<std::string> inputs = {input(),
                                       onnx.initializer(layer->weight.data(), name + ".weight")};
    if (layer->bias != nullptr)
      inputs.push_back(onnx.initializer(layer->bias->data(), name + ".bias"));
    return onnx.node("Gemm", inputs, {OnnxGraph::integer("transB", 1)},
                     at_ + 1 == steps_.size() ? "logits" : "");
  }
  std::string node(nn::Link::Function function) {
    if (function == static_cast<nn::Link::Function>(relu)) return onnx.node("Relu", {input()});
    if (function == static_cast<nn::Link::Function>(global_avg_pool))
      return onnx.node("Flatten", {onnx.node("GlobalAveragePool", {input()})},
                       {OnnxGraph::integer("axis", 1)});
    if (function == static_cast<nn::Link::Function>(nn::pool_7x7)) return pool_7x7();
    if (function == static_cast<nn::Link::Function>(relu6))
      return onnx.node("Clip", {input(), onnx.initializer(Tensor::full({}, 0.0)),
                                onnx.initializer(Tensor::full({}, 6.0))});
    throw UsageError("onnx: no export of a function that the network calls");
  }
  // With operators that readers have: ONNX knows no adaptive pool.
  std::string pool_7x7() {
    const int64_t size = steps_[at_].input.size(2);
    std::string x = input();
    if (size % 7 == 0) {
      if (size > 7) x = pool_node("AveragePool", Pool2dOptions(size / 7));
    } else if (size == 1) {
      for (const int64_t axis : {2, 3})
        x = onnx.node("Concat", std::vector<std::string>(7, x), {OnnxGraph::integer("axis", axis)});
    } else {
      throw UsageError(str("onnx: the pool to 7x7 pixels of maps of ", size, "x", size,
                           " has no counterpart; its size must be 1 or a multiple of 7"));
    }
    return onnx.node("Flatten", {x}, {OnnxGraph::integer("axis", 1)});
  }
  std::string node(const nn::MaxPool2d& pool) { return pool_node("MaxPool", pool.options); }
  std::string node(const nn::AvgPool2d& pool) { return pool_node("AveragePool", pool.options); }
  std::string pool_node(const char* op, const Pool2dOptions& o) {
    std::vector<data::ProtoWriter> attributes = {
        OnnxGraph::integers("kernel_shape", {o.kernel[0], o.kernel[1]}),
        OnnxGraph::integers("strides", {o.stride[0], o.stride[1]})};
    if (o.padding[0] != 0 || o.padding[1] != 0)
      attributes.push_back(
          OnnxGraph::integers("pads", {o.padding[0], o.padding[1], o.padding[0], o.padding[1]}));
    if (o.ceil_mode) attributes.push_back(OnnxGraph::integer("ceil_mode", 1));
    if (std::string(op) == "AveragePool")
      attributes.push_back(OnnxGraph::integer("count_include_pad", o.count_include_pad ? 1 : 0));
    return onnx.node(op, {input()}, attributes);
  }
  std::string node(const nn::Channels& part) {
    return onnx.node("Slice",
                     {input(), constant({part.begin}), constant({part.end}), constant({1})});
  }
  std::string node(const nn::ChannelShuffle& shuffle) {
    const Shape& s = steps_[at_].output.shape();
    const std::string parts = onnx.node(
        "Reshape", {input(), constant({0, shuffle.groups, s[1] / shuffle.groups, s[2], s[3]})});
    const std::string order =
        onnx.node("Transpose", {parts}, {OnnxGraph::integers("perm", {0, 2, 1, 3, 4})});
    return onnx.node("Reshape", {order, constant({0, s[1], s[2], s[3]})});
  }
  std::string node(const nn::PadShortcut& p) {
    const std::string part =
        onnx.node("Slice", {input(), constant({0, 0}), constant({INT64_MAX, INT64_MAX}),
                            constant({2, 3}), constant({p.stride, p.stride})});
    return onnx.node("Pad", {part, constant({0, p.before, 0, 0, 0, p.after, 0, 0})});
  }
  std::string node(const nn::Join& join) {
    const std::string x = input();
    return onnx.node("Add", {x, name_of(join.shortcut->value())});
  }
  std::string node(const nn::Concat& concat) {
    const std::string x = input();
    return onnx.node("Concat", {x, name_of(concat.more->value())}, {OnnxGraph::integer("axis", 1)});
  }
  std::string node(nn::Module*) { throw Error("onnx: a block is not a step of a trace"); }

  std::string input() { return name_of(steps_[at_].input); }
  std::string name_of(const Variable& v) {
    if (const auto map = maps_.find(v.impl().get()); map != maps_.end() && map->second.x.defined())
      names_[v.impl().get()] = write(take(&map->second));
    const auto it = names_.find(v.impl().get());
    if (it == names_.end())
      throw UsageError(str("onnx: the network computes something that no chain of layers shows, ",
                           "before step ", at_, " of ", steps_.size()));
    return it->second;
  }
  std::string constant(const std::vector<int64_t>& values) {
    return onnx.initializer(Tensor::from(values, {std::ssize(values)}));
  }
  static Tensor f64(const Tensor& t) { return t.to(Device::cpu()).to(DType::f64); }

  std::vector<nn::TraceStep> steps_;
  bool fold_bn_;
  size_t at_ = 0;
  std::map<const nn::Module*, std::string> paths_;
  std::map<const Variable::Impl*, std::vector<size_t>> readers_;
  std::map<const Variable::Impl*, std::string> names_;
  std::map<const Variable::Impl*, Map> maps_;  // with an undefined x: taken
};

std::string join(const std::vector<double>& values) {
  std::string out;
  for (const double v : values) out += str(out.empty() ? "" : ",", v);
  return out;
}

}  // namespace

std::string onnx_model(nn::Classifier& net, const nn::ModelSpec& spec,
                       const data::Normalization& normalization, const OnnxOptions& options) {
  OnnxGraph onnx;
  onnx.input("images", {spec.in_channels, spec.image_size, spec.image_size});
  onnx.output("logits", {spec.num_classes});
  if (auto* imported = dynamic_cast<nn::GraphClassifier*>(&net)) {
    if (options.fold_bn)
      throw UsageError("onnx: batch norms of a network from an ONNX file are not folded here");
    write_imported(*imported, &onnx);
  } else {
    const nn::Precision precision = net.precision();
    net.set_precision(nn::Precision::f32);  // no casts between the layers
    const Variable images(
        Tensor::zeros({1, spec.in_channels, spec.image_size, spec.image_size}).to(net.device()));
    Exporter e(net, nn::trace(net, images), &onnx, options.fold_bn);
    net.set_precision(precision);
    e.write(images);
  }
  std::vector<std::pair<std::string, std::string>> metadata = {
      {"mean", join(normalization.mean)}, {"std", join(normalization.std)}, {"arch", spec.name}};
  if (const std::string names = class_list(options.classes); !names.empty())
    metadata.emplace_back("classes", names);
  return onnx.model(spec.name, options.opset, metadata);
}

void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization, const OnnxOptions& options) {
  data::write_file_atomic(path, onnx_model(net, spec, normalization, options));
}

}  // namespace mtcki

#include "mtcki/export/onnx.h"

#include <map>
#include <variant>
#include <vector>

#include "autograd/functions.h"
#include "data/formats/atomic_file.h"
#include "mtcki/export/onnx_graph.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {

// Writes what a network did in one pass, a node or two a link. Parameters become initializers under
// their checkpoint's names.
class Exporter {
 public:
  Exporter(nn::Classifier& net, std::vector<nn::TraceStep> steps, bool fold_bn)
      : steps_(std::move(steps)), fold_bn_(fold_bn) {
    for (const auto& [path, module] : net.named_modules()) paths_[module] = path;
    for (size_t i = 0; i < steps_.size(); ++i) {
      readers_[steps_[i].input.impl().get()].push_back(i);
      if (const auto* join = std::get_if<nn::Join>(&steps_[i].link.what))
        readers_[join->shortcut->value().impl().get()].push_back(i);
    }
  }

  void write(const Variable& images) {
    names_[images.impl().get()] = "images";
    for (at_ = 0; at_ < steps_.size(); ++at_) {
      const nn::TraceStep& step = steps_[at_];
      std::string& name = names_[step.output.impl().get()];
      if (name.empty())
        name = std::visit([&](const auto& what) { return node(what); }, step.link.what);
    }
    if (steps_.empty() || name_of(steps_.back().output) != "logits")
      throw UsageError("onnx: the network does not end with a linear layer");
  }

  OnnxGraph onnx;

 private:
  std::string node(nn::Conv2d* conv) {
    const std::string x = input(), name = paths_.at(conv);
    if (const auto* norm = fold_bn_ ? only_reader() : nullptr) {
      const Tensor gamma = f64(norm->weight.data()), var = f64(norm->running_var);
      const Tensor scale = div(gamma, sqrt(add(var, norm->eps())));
      Tensor shift = mul(f64(norm->running_mean), -1.0);
      if (conv->bias != nullptr) shift = add(shift, f64(conv->bias->data()));
      const Tensor weight = mul(f64(conv->weight.data()).plain(), scale.reshape({-1, 1, 1, 1}));
      const Tensor bias = add(mul(scale, shift), f64(norm->bias.data()));
      return names_[steps_[at_ + 1].output.impl().get()] =
                 conv_node(*conv, {x, onnx.initializer(weight, name + ".weight"),
                                   onnx.initializer(bias, name + ".bias")});
    }
    std::vector<std::string> inputs = {x, onnx.initializer(conv->weight.data(), name + ".weight")};
    if (conv->bias != nullptr)
      inputs.push_back(onnx.initializer(conv->bias->data(), name + ".bias"));
    return conv_node(*conv, inputs);
  }
  std::string conv_node(const nn::Conv2d& conv, const std::vector<std::string>& inputs) {
    const Conv2dOptions& o = conv.options();
    const Shape& w = conv.weight.shape();
    std::vector<data::ProtoWriter> attributes = {
        OnnxGraph::integers("kernel_shape", {w[2], w[3]}),
        OnnxGraph::integers("strides", {o.stride[0], o.stride[1]}),
        OnnxGraph::integers("pads", {o.padding[0], o.padding[1], o.padding[0], o.padding[1]})};
    if (o.groups != 1) attributes.push_back(OnnxGraph::integer("group", o.groups));
    if (o.dilation[0] != 1 || o.dilation[1] != 1)
      attributes.push_back(OnnxGraph::integers("dilations", {o.dilation[0], o.dilation[1]}));
    return onnx.node("Conv", inputs, attributes);
  }
  std::string node(nn::BatchNorm2d* norm) {
    const std::string name = paths_.at(norm);
    return onnx.node("BatchNormalization",
                     {input(), onnx.initializer(norm->weight.data(), name + ".weight"),
                      onnx.initializer(norm->bias.data(), name + ".bias"),
                      onnx.initializer(norm->running_mean, name + ".running_mean"),
                      onnx.initializer(norm->running_var, name + ".running_var")},
                     {OnnxGraph::real("epsilon", static_cast<float>(norm->eps()))});
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
    throw UsageError("onnx: no export of a function that the network calls");
  }
  std::string node(const nn::MaxPool2d& pool) {
    const Pool2dOptions& o = pool.options;
    std::vector<data::ProtoWriter> attributes = {
        OnnxGraph::integers("kernel_shape", {o.kernel[0], o.kernel[1]}),
        OnnxGraph::integers("strides", {o.stride[0], o.stride[1]})};
    if (o.padding[0] != 0 || o.padding[1] != 0)
      attributes.push_back(
          OnnxGraph::integers("pads", {o.padding[0], o.padding[1], o.padding[0], o.padding[1]}));
    if (o.ceil_mode) attributes.push_back(OnnxGraph::integer("ceil_mode", 1));
    return onnx.node("MaxPool", {input()}, attributes);
  }
  std::string node(const nn::PadShortcut& p) {
    const std::string part =
        onnx.node("Slice", {input(), constant({0, 0}), constant({INT64_MAX, INT64_MAX}),
                            constant({2, 3}), constant({p.stride, p.stride})});
    return onnx.node("Pad", {part, constant({0, p.before, 0, 0, 0, p.after, 0, 0})});
  }
  std::string node(const nn::Join& join) {
    return onnx.node("Add", {input(), name_of(join.shortcut->value())});
  }
  std::string node(nn::Module*) { throw Error("onnx: a block is not a step of a trace"); }

  std::string input() const { return name_of(steps_[at_].input); }
  std::string name_of(const Variable& v) const {
    const auto it = names_.find(v.impl().get());
    if (it == names_.end())
      throw UsageError(str("onnx: the network computes something that no chain of layers shows, ",
                           "before step ", at_, " of ", steps_.size()));
    return it->second;
  }
  // The batch norm behind this step, if nothing else reads its output.
  const nn::BatchNorm2d* only_reader() const {
    const auto it = readers_.find(steps_[at_].output.impl().get());
    if (it == readers_.end() || it->second != std::vector<size_t>{at_ + 1}) return nullptr;
    const auto* norm = std::get_if<nn::BatchNorm2d*>(&steps_[at_ + 1].link.what);
    return norm != nullptr ? *norm : nullptr;
  }
  std::string constant(const std::vector<int64_t>& values) {
    return onnx.initializer(Tensor::from(values, {static_cast<int64_t>(values.size())}));
  }
  static Tensor f64(const Tensor& t) { return t.to(Device::cpu()).to(DType::f64); }

  std::vector<nn::TraceStep> steps_;
  bool fold_bn_;
  size_t at_ = 0;
  std::map<const nn::Module*, std::string> paths_;
  std::map<const Variable::Impl*, std::vector<size_t>> readers_;
  std::map<const Variable::Impl*, std::string> names_;
};

std::string join(const std::vector<double>& values) {
  std::string out;
  for (const double v : values) out += str(out.empty() ? "" : ",", v);
  return out;
}

}  // namespace

std::string onnx_model(nn::Classifier& net, const nn::ModelSpec& spec,
                       const data::Normalization& normalization, const OnnxOptions& options) {
  const nn::Precision precision = net.precision();
  net.set_precision(nn::Precision::f32);  // no casts between the layers
  const Variable images(
      Tensor::zeros({1, spec.in_channels, spec.image_size, spec.image_size}).to(net.device()));
  Exporter e(net, nn::trace(net, images), options.fold_bn);
  net.set_precision(precision);
  e.onnx.input("images", {spec.in_channels, spec.image_size, spec.image_size});
  e.onnx.output("logits", {spec.num_classes});
  e.write(images);
  return e.onnx.model(
      spec.name, options.opset,
      {{"mean", join(normalization.mean)}, {"std", join(normalization.std)}, {"arch", spec.name}});
}

void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization, const OnnxOptions& options) {
  data::write_file_atomic(path, onnx_model(net, spec, normalization, options));
}

}  // namespace mtcki

#include "mtcki/export/onnx.h"

#include <map>
#include <vector>

#include "data/formats/atomic_file.h"
#include "mtcki/export/onnx_graph.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {

constexpr double kEps = 1e-5;

// The nodes that the families share. Parameters become initializers under their checkpoint's names.
class Graph {
 public:
  Graph(const nn::StateDict& state, bool fold_bn) : fold_bn_(fold_bn) {
    for (const auto& [name, tensor] : state) state_[name] = tensor;
  }
  bool has(const std::string& name) const { return state_.count(name) > 0; }
  const Tensor& tensor(const std::string& name) const {
    const auto it = state_.find(name);
    if (it == state_.end()) throw Error("onnx: the network has no \"" + name + "\"");
    return it->second;
  }
  std::string parameter(const std::string& name) { return onnx.initializer(tensor(name), name); }
  std::string constant(const std::vector<int64_t>& values) {
    return onnx.initializer(Tensor::from(values, {static_cast<int64_t>(values.size())}));
  }

  std::string conv(const std::string& x, const std::string& name, int64_t stride) {
    std::vector<std::string> inputs = {x, parameter(name + ".weight")};
    if (has(name + ".bias")) inputs.push_back(parameter(name + ".bias"));
    return conv_node(inputs, name, stride);
  }
  std::string batch_norm(const std::string& x, const std::string& name) {
    return onnx.node("BatchNormalization",
                     {x, parameter(name + ".weight"), parameter(name + ".bias"),
                      parameter(name + ".running_mean"), parameter(name + ".running_var")},
                     {OnnxGraph::real("epsilon", static_cast<float>(kEps))});
  }
  // A convolution that nothing but this batch norm reads.
  std::string conv_norm(const std::string& x, const std::string& name, const std::string& norm,
                        int64_t stride) {
    if (!fold_bn_) return batch_norm(conv(x, name, stride), norm);
    const auto f64 = [this](const std::string& n) {
      return tensor(n).to(Device::cpu()).to(DType::f64);
    };
    const Tensor scale = div(f64(norm + ".weight"), sqrt(add(f64(norm + ".running_var"), kEps)));
    Tensor shift = mul(f64(norm + ".running_mean"), -1.0);
    if (has(name + ".bias")) shift = add(shift, f64(name + ".bias"));
    const Tensor weight = f64(name + ".weight").plain();
    const Tensor bias = add(mul(scale, shift), f64(norm + ".bias"));
    return conv_node(
        {x, onnx.initializer(mul(weight, scale.reshape({-1, 1, 1, 1})), name + ".weight"),
         onnx.initializer(bias, name + ".bias")},
        name, stride);
  }
  std::string relu(const std::string& x) { return onnx.node("Relu", {x}); }
  void head(const std::string& x, const std::string& name) {
    const std::string pooled = onnx.node("Flatten", {onnx.node("GlobalAveragePool", {x})},
                                         {OnnxGraph::integer("axis", 1)});
    onnx.node("Gemm", {pooled, parameter(name + ".weight"), parameter(name + ".bias")},
              {OnnxGraph::integer("transB", 1)}, "logits");
  }

  OnnxGraph onnx;

 private:
  std::string conv_node(const std::vector<std::string>& inputs, const std::string& name,
                        int64_t stride) {
    const int64_t k = tensor(name + ".weight").size(2), pad = k / 2;
    return onnx.node("Conv", inputs,
                     {OnnxGraph::integers("kernel_shape", {k, k}),
                      OnnxGraph::integers("strides", {stride, stride}),
                      OnnxGraph::integers("pads", {pad, pad, pad, pad})});
  }

  bool fold_bn_;
  std::map<std::string, Tensor> state_;
};

void resnet(Graph& g) {
  std::string x = g.relu(g.conv_norm("images", "conv1", "bn1", 1));
  int64_t width = g.tensor("conv1.weight").size(0);
  for (int layer = 1; g.has(str("layer", layer, ".0.conv1.weight")); ++layer) {
    for (int b = 0; g.has(str("layer", layer, ".", b, ".conv1.weight")); ++b) {
      const std::string p = str("layer", layer, ".", b);
      const int64_t stride = layer > 1 && b == 0 ? 2 : 1;
      const int64_t out = g.tensor(p + ".conv1.weight").size(0);
      const std::string h = g.relu(g.conv_norm(x, p + ".conv1", p + ".bn1", stride));
      const std::string y = g.conv_norm(h, p + ".conv2", p + ".bn2", 1);
      std::string shortcut = x;
      for (const char* name : {".shortcut", ".downsample"})
        if (g.has(p + name + ".0.weight"))
          shortcut = g.conv_norm(x, p + name + ".0", p + name + ".1", stride);
      if (shortcut == x &&
          (stride != 1 || out != width)) {  // option A: every other pixel, zero channels
        const std::string part =
            g.onnx.node("Slice", {x, g.constant({0, 0}), g.constant({INT64_MAX, INT64_MAX}),
                                  g.constant({2, 3}), g.constant({stride, stride})});
        const int64_t pad = (out - width) / 2;
        shortcut = g.onnx.node("Pad", {part, g.constant({0, pad, 0, 0, 0, pad, 0, 0})});
      }
      x = g.relu(g.onnx.node("Add", {y, shortcut}));
      width = out;
    }
  }
  g.head(x, g.has("fc.weight") ? "fc" : "linear");
}

void wide_resnet(Graph& g) {
  // The first convolution feeds the first batch norm alone when the first block projects.
  const bool first_projects = g.has("block1.layer.0.convShortcut.weight");
  std::string x = first_projects ? "" : g.conv("images", "conv1", 1);
  for (int s = 1; s <= 3; ++s) {
    for (int b = 0; g.has(str("block", s, ".layer.", b, ".conv1.weight")); ++b) {
      const std::string p = str("block", s, ".layer.", b);
      const int64_t stride = s > 1 && b == 0 ? 2 : 1;
      const std::string a = g.relu(x.empty() ? g.conv_norm("images", "conv1", p + ".bn1", 1)
                                             : g.batch_norm(x, p + ".bn1"));
      const std::string h = g.relu(g.conv_norm(a, p + ".conv1", p + ".bn2", stride));
      const std::string y = g.conv(h, p + ".conv2", 1);
      const bool projected = g.has(p + ".convShortcut.weight");
      x = g.onnx.node("Add", {y, projected ? g.conv(a, p + ".convShortcut", stride) : x});
    }
  }
  g.head(g.relu(g.batch_norm(x, "bn1")), "fc");
}

void vgg(Graph& g, int64_t image_size) {
  std::string x = "images";
  for (int b = 0; b < 5; ++b) {
    for (int i = 0; g.has(str("block", b, ".", 3 * i, ".weight")); ++i)
      x = g.relu(g.conv_norm(x, str("block", b, ".", 3 * i), str("block", b, ".", 3 * i + 1), 1));
    if (b < 3 || (b == 3 && image_size == 64))
      x = g.onnx.node(
          "MaxPool", {x},
          {OnnxGraph::integers("kernel_shape", {2, 2}), OnnxGraph::integers("strides", {2, 2})});
  }
  g.head(x, "classifier");
}

std::string join(const std::vector<double>& values) {
  std::string out;
  for (const double v : values) out += str(out.empty() ? "" : ",", v);
  return out;
}

}  // namespace

std::string onnx_model(nn::Classifier& net, const nn::ModelSpec& spec,
                       const data::Normalization& normalization, const OnnxOptions& options) {
  Graph g(net.state_dict(), options.fold_bn);
  g.onnx.input("images", {spec.in_channels, spec.image_size, spec.image_size});
  g.onnx.output("logits", {spec.num_classes});
  if (net.kind() == "ResNet")
    resnet(g);
  else if (net.kind() == "WideResNet")
    wide_resnet(g);
  else if (net.kind() == "VGG")
    vgg(g, spec.image_size);
  else
    throw UsageError("onnx: no export of a " + net.kind());
  return g.onnx.model(
      spec.name, options.opset,
      {{"mean", join(normalization.mean)}, {"std", join(normalization.std)}, {"arch", spec.name}});
}

void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization, const OnnxOptions& options) {
  data::write_file_atomic(path, onnx_model(net, spec, normalization, options));
}

}  // namespace mtcki

#include "mtcki/onnx_export.h"

#include <map>
#include <vector>

#include "data/atomic_file.h"
#include "data/protobuf.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

using data::ProtoWriter;

// Attributes of a node; field numbers and types of onnx.proto's AttributeProto.
ProtoWriter integer(const char* name, int64_t v) {
  return std::move(ProtoWriter().text(1, name).integer(3, v).integer(20, 2));
}
ProtoWriter real(const char* name, float v) {
  return std::move(ProtoWriter().text(1, name).real32(2, v).integer(20, 1));
}
ProtoWriter integers(const char* name, const std::vector<int64_t>& values) {
  ProtoWriter a;
  a.text(1, name);
  for (const int64_t v : values) a.integer(8, v);
  return std::move(a.integer(20, 7));
}

class Graph {
 public:
  explicit Graph(const nn::StateDict& state) {
    for (const auto& [name, tensor] : state) state_[name] = tensor;
  }
  bool has(const std::string& name) const { return state_.count(name) > 0; }
  const Tensor& tensor(const std::string& name) const {
    const auto it = state_.find(name);
    if (it == state_.end()) throw Error("onnx: the network has no \"" + name + "\"");
    return it->second;
  }

  std::string node(const char* op, const std::vector<std::string>& inputs,
                   const std::vector<ProtoWriter>& attributes = {},
                   const std::string& output = "") {
    const std::string out = output.empty() ? str(op, "_", count_) : output;
    ProtoWriter n;
    for (const std::string& i : inputs) n.text(1, i);
    n.text(2, out).text(3, str(op, "_", count_++)).text(4, op);
    for (const ProtoWriter& a : attributes) n.message(5, a);
    graph_.message(1, n);
    return out;
  }
  // A parameter as initializer; its name is the checkpoint's.
  std::string parameter(const std::string& name) {
    const Tensor t = tensor(name).plain().to(DType::f32);
    ProtoWriter p;
    for (int i = 0; i < t.rank(); ++i) p.integer(1, t.size(i));
    p.integer(2, 1).text(8, name).text(9, {static_cast<const char*>(t.raw()), t.nbytes()});
    initializers_.push_back(p);
    return name;
  }
  std::string constant(const std::vector<int64_t>& values) {
    const std::string name = str("constant_", count_++);
    ProtoWriter p;
    p.integer(1, static_cast<int64_t>(values.size())).integer(2, 7).text(8, name);
    p.text(9, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int64_t)});
    initializers_.push_back(p);
    return name;
  }

  std::string conv(const std::string& x, const std::string& name, int64_t stride) {
    const int64_t k = tensor(name + ".weight").size(2), pad = k / 2;
    std::vector<std::string> inputs = {x, parameter(name + ".weight")};
    if (has(name + ".bias")) inputs.push_back(parameter(name + ".bias"));
    return node("Conv", inputs,
                {integers("kernel_shape", {k, k}), integers("strides", {stride, stride}),
                 integers("pads", {pad, pad, pad, pad})});
  }
  std::string batch_norm(const std::string& x, const std::string& name) {
    return node("BatchNormalization",
                {x, parameter(name + ".weight"), parameter(name + ".bias"),
                 parameter(name + ".running_mean"), parameter(name + ".running_var")},
                {real("epsilon", 1e-5f)});
  }
  std::string relu(const std::string& x) { return node("Relu", {x}); }
  void head(const std::string& x, const std::string& name) {
    const std::string pooled =
        node("Flatten", {node("GlobalAveragePool", {x})}, {integer("axis", 1)});
    node("Gemm", {pooled, parameter(name + ".weight"), parameter(name + ".bias")},
         {integer("transB", 1)}, "logits");
  }

  ProtoWriter finish(const nn::ModelSpec& spec) {
    graph_.text(2, spec.name);
    for (const ProtoWriter& p : initializers_) graph_.message(5, p);
    const int64_t c = spec.in_channels, s = spec.image_size;
    graph_.message(11, value("images", {c, s, s})).message(12, value("logits", {spec.num_classes}));
    return graph_;
  }

 private:
  // f32 with a free first dimension.
  static ProtoWriter value(const char* name, const std::vector<int64_t>& sizes) {
    ProtoWriter shape, dim, tensor_type, type, info;
    shape.message(1, dim.text(2, "N"));
    for (const int64_t size : sizes) {
      ProtoWriter d;
      shape.message(1, d.integer(1, size));
    }
    tensor_type.integer(1, 1).message(2, shape);
    type.message(1, tensor_type);
    return std::move(info.text(1, name).message(2, type));
  }

  std::map<std::string, Tensor> state_;
  std::vector<ProtoWriter> initializers_;
  ProtoWriter graph_;
  int count_ = 0;
};

void resnet(Graph& g) {
  std::string x = g.relu(g.batch_norm(g.conv("images", "conv1", 1), "bn1"));
  int64_t width = g.tensor("conv1.weight").size(0);
  for (int layer = 1; g.has(str("layer", layer, ".0.conv1.weight")); ++layer) {
    for (int b = 0; g.has(str("layer", layer, ".", b, ".conv1.weight")); ++b) {
      const std::string p = str("layer", layer, ".", b);
      const int64_t stride = layer > 1 && b == 0 ? 2 : 1;
      const int64_t out = g.tensor(p + ".conv1.weight").size(0);
      const std::string h = g.relu(g.batch_norm(g.conv(x, p + ".conv1", stride), p + ".bn1"));
      const std::string y = g.batch_norm(g.conv(h, p + ".conv2", 1), p + ".bn2");
      std::string shortcut = x;
      for (const char* name : {".shortcut", ".downsample"})
        if (g.has(p + name + ".0.weight"))
          shortcut = g.batch_norm(g.conv(x, p + name + ".0", stride), p + name + ".1");
      if (shortcut == x &&
          (stride != 1 || out != width)) {  // option A: every other pixel, zero channels
        const std::string part =
            g.node("Slice", {x, g.constant({0, 0}), g.constant({INT64_MAX, INT64_MAX}),
                             g.constant({2, 3}), g.constant({stride, stride})});
        const int64_t pad = (out - width) / 2;
        shortcut = g.node("Pad", {part, g.constant({0, pad, 0, 0, 0, pad, 0, 0})});
      }
      x = g.relu(g.node("Add", {y, shortcut}));
      width = out;
    }
  }
  g.head(x, g.has("fc.weight") ? "fc" : "linear");
}

void wide_resnet(Graph& g) {
  std::string x = g.conv("images", "conv1", 1);
  for (int s = 1; s <= 3; ++s) {
    for (int b = 0; g.has(str("block", s, ".layer.", b, ".conv1.weight")); ++b) {
      const std::string p = str("block", s, ".layer.", b);
      const int64_t stride = s > 1 && b == 0 ? 2 : 1;
      const std::string a = g.relu(g.batch_norm(x, p + ".bn1"));
      const std::string h = g.relu(g.batch_norm(g.conv(a, p + ".conv1", stride), p + ".bn2"));
      const std::string y = g.conv(h, p + ".conv2", 1);
      const bool projected = g.has(p + ".convShortcut.weight");
      x = g.node("Add", {y, projected ? g.conv(a, p + ".convShortcut", stride) : x});
    }
  }
  g.head(g.relu(g.batch_norm(x, "bn1")), "fc");
}

void vgg(Graph& g, int64_t image_size) {
  std::string x = "images";
  for (int b = 0; b < 5; ++b) {
    for (int i = 0; g.has(str("block", b, ".", 3 * i, ".weight")); ++i)
      x = g.relu(
          g.batch_norm(g.conv(x, str("block", b, ".", 3 * i), 1), str("block", b, ".", 3 * i + 1)));
    if (b < 3 || (b == 3 && image_size == 64))
      x = g.node("MaxPool", {x}, {integers("kernel_shape", {2, 2}), integers("strides", {2, 2})});
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
                       const data::Normalization& normalization) {
  Graph g(net.state_dict());
  if (net.kind() == "ResNet")
    resnet(g);
  else if (net.kind() == "WideResNet")
    wide_resnet(g);
  else if (net.kind() == "VGG")
    vgg(g, spec.image_size);
  else
    throw UsageError("onnx: no export of a " + net.kind());
  ProtoWriter model, opset;
  model.integer(1, 7).text(2, "mtcki").message(7, g.finish(spec));
  model.message(8, opset.text(1, "").integer(2, 13));
  for (const auto& [key, value] :
       {std::pair<std::string, std::string>{"mean", join(normalization.mean)},
        {"std", join(normalization.std)},
        {"arch", spec.name}}) {
    ProtoWriter property;
    model.message(14, property.text(1, key).text(2, value));
  }
  return model.bytes();
}

void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization) {
  data::write_file_atomic(path, onnx_model(net, spec, normalization));
}

}  // namespace mtcki

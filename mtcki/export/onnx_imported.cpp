// Networks that came from an ONNX file, operation by operation (nn/models/graph.h).
#include <algorithm>
#include <map>

#include "mtcki/export/onnx_graph.h"
#include "nn/models/graph.h"
#include "nn/state_dict.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

using Sizes = std::vector<int64_t>;

class ImportedWriter {
 public:
  ImportedWriter(nn::GraphClassifier& net, OnnxGraph* onnx) : spec_(net.spec()), onnx_(*onnx) {
    for (const auto& [name, t] : net.state_dict()) weights_[name] = t;
  }

  void write() {
    for (const nn::GraphNode& n : spec_.nodes) {
      in_.clear();
      for (const int64_t v : n.inputs) in_.push_back(names_[static_cast<size_t>(v)]);
      ranks_.push_back(rank_of(n));
      output_ = names_.size() == spec_.nodes.size() ? "logits" : "";
      names_.push_back(n.op == "constant" ? parameter(n, "value") : node_of(n));
    }
  }

 private:
  using Attributes = std::vector<data::ProtoWriter>;

  size_t rank_of(const nn::GraphNode& n) const {
    if (n.op == "constant" || n.op == "reshape") return n.ints.size();
    size_t rank = 0;
    for (const int64_t v : n.inputs) rank = std::max(rank, ranks_[static_cast<size_t>(v)]);
    const bool less = (n.op == "mean" || n.op == "sum") && n.ints[0] == 0;
    return less ? rank - (n.ints.size() - 1) : rank;
  }

  std::string parameter(const nn::GraphNode& n, const std::string& name, bool turned = false) {
    const std::string full = n.name + "." + name;
    const Tensor& t = weights_.at(full);
    return onnx_.initializer(turned ? transpose(t) : t, full);
  }
  std::string number(double v) { return onnx_.initializer(Tensor::full({}, v)); }
  std::string list(const Sizes& v) { return onnx_.initializer(Tensor::from(v, {std::ssize(v)})); }
  static data::ProtoWriter real(const char* name, double v) {
    return OnnxGraph::real(name, static_cast<float>(v));
  }
  static data::ProtoWriter word(const char* name, const char* v) {
    return std::move(data::ProtoWriter().text(1, name).text(4, v).integer(20, 3));
  }
  // The node's last operator.
  std::string last(const char* op, const std::vector<std::string>& inputs,
                   const Attributes& attributes = {}) {
    return onnx_.node(op, inputs, attributes, output_);
  }

  std::string node_of(const nn::GraphNode& n) {
    static const std::map<std::string, const char*> same = {
        {"relu", "Relu"},      {"sigmoid", "Sigmoid"},   {"tanh", "Tanh"},
        {"erf", "Erf"},        {"exp", "Exp"},           {"log", "Log"},
        {"sqrt", "Sqrt"},      {"abs", "Abs"},           {"add", "Add"},
        {"sub", "Sub"},        {"mul", "Mul"},           {"div", "Div"},
        {"cat", "Concat"},     {"softmax", "Softmax"},   {"log_softmax", "LogSoftmax"},
        {"matmul", "MatMul"},  {"permute", "Transpose"}, {"leaky_relu", "LeakyRelu"},
        {"mean", "ReduceMean"}};
    const auto integer = OnnxGraph::integer;
    const auto integers = OnnxGraph::integers;
    const Sizes& i = n.ints;
    const std::string x = in_.empty() ? "" : in_[0];
    if (n.op == "conv" || n.op == "max_pool" || n.op == "avg_pool") return window(n);
    if (n.op == "batch_norm")
      return last("BatchNormalization",
                  {x, parameter(n, "weight"), parameter(n, "bias"), parameter(n, "running_mean"),
                   parameter(n, "running_var")},
                  {real("epsilon", n.reals[0])});
    if (n.op == "linear" && i[2] == 0) return last("MatMul", {x, parameter(n, "weight", true)});
    if (n.op == "linear")
      return last("Add",
                  {onnx_.node("MatMul", {x, parameter(n, "weight", true)}), parameter(n, "bias")});
    if (n.op == "resample" && i[0] == 2) return last("MatMul", {parameter(n, "value"), x});
    if (n.op == "resample") return last("MatMul", {x, parameter(n, "value", true)});
    if (n.op == "clamp") return last("Clip", {x, number(n.reals[0]), number(n.reals[1])});
    if (n.op == "scale")
      return last("Add", {onnx_.node("Mul", {x, number(n.reals[0])}), number(n.reals[1])});
    if (n.op == "greater") return last("Cast", {onnx_.node("Greater", in_)}, {integer("to", 1)});
    if (n.op == "narrow") return last("Slice", {x, list({i[1]}), list({i[2]}), list({i[0]})});
    if (n.op == "reshape") return last("Reshape", {x, list(i)});
    if (n.op == "sum")
      return last("ReduceSum", {x, list({i.begin() + 1, i.end()})}, {integer("keepdims", i[0])});
    if (n.op == "pad") {
      const size_t rank = ranks_.back(), d = static_cast<size_t>(i[0]);
      Sizes pads(2 * rank, 0);
      pads.at(d) = i[1], pads.at(rank + d) = i[2];
      return last("Pad", {x, list(pads)});
    }
    if (n.op == "upsample") {  // N and C are those of x
      const std::string outer =
          onnx_.node("Slice", {onnx_.node("Shape", {x}), list({0}), list({2})});
      const std::string sizes = onnx_.node("Concat", {outer, list(i)}, {integer("axis", 0)});
      return last("Resize", {x, "", "", sizes},
                  {word("mode", "nearest"), word("coordinate_transformation_mode", "asymmetric"),
                   word("nearest_mode", "floor")});
    }
    Attributes attributes;
    if (n.op == "cat") attributes = {integer("axis", i[0])};
    if (n.op == "permute") attributes = {integers("perm", i)};
    if (n.op == "leaky_relu") attributes = {real("alpha", n.reals[0])};
    if (n.op == "mean")
      attributes = {integers("axes", {i.begin() + 1, i.end()}), integer("keepdims", i[0])};
    return last(same.at(n.op), in_, attributes);
  }

  // Of kernels that go over an image.
  std::string window(const nn::GraphNode& n) {
    const bool conv = n.op == "conv";
    const int64_t* i = n.ints.data() + (conv ? 2 : 0);
    const auto integer = OnnxGraph::integer;
    const auto integers = OnnxGraph::integers;
    Attributes attributes{integers("kernel_shape", {i[0], i[1]}), integers("strides", {i[2], i[3]}),
                          integers("pads", {i[4], i[5], i[4], i[5]})};
    if (conv) {
      in_.push_back(parameter(n, "weight"));
      if (n.ints[11] != 0) in_.push_back(parameter(n, "bias"));
      attributes.push_back(integers("dilations", {i[6], i[7]}));
      attributes.push_back(integer("group", i[8]));
      return last("Conv", in_, attributes);
    }
    attributes.push_back(integer("ceil_mode", i[6]));
    if (n.op == "max_pool") return last("MaxPool", in_, attributes);
    attributes.push_back(integer("count_include_pad", i[7]));
    return last("AveragePool", in_, attributes);
  }

  const nn::GraphSpec& spec_;
  OnnxGraph& onnx_;
  std::map<std::string, Tensor> weights_;
  std::vector<std::string> names_{"images"}, in_;  // of the values; of the inputs of a node
  std::vector<size_t> ranks_{4};
  std::string output_;
};

}  // namespace

void write_imported(nn::GraphClassifier& net, OnnxGraph* onnx) {
  ImportedWriter(net, onnx).write();
}

}  // namespace mtcki

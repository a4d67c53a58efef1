#include "mtcki/export/onnx_graph.h"

#include "tensor/error.h"

namespace mtcki {

using data::ProtoWriter;

namespace {

// Types of AttributeProto and of TensorProto.
enum AttributeType { kFloat = 1, kInt = 2, kInts = 7 };
enum ElementType { kF32 = 1, kI64 = 7 };

ProtoWriter value_info(const std::string& name, const std::vector<int64_t>& sizes) {
  ProtoWriter shape, batch, tensor_type, type, info;
  shape.message(1, batch.text(2, "N"));
  for (const int64_t size : sizes) {
    ProtoWriter dim;
    shape.message(1, dim.integer(1, size));
  }
  tensor_type.integer(1, kF32).message(2, shape);
  type.message(1, tensor_type);
  return std::move(info.text(1, name).message(2, type));
}

}  // namespace

ProtoWriter OnnxGraph::integer(const char* name, int64_t value) {
  return std::move(ProtoWriter().text(1, name).integer(3, value).integer(20, kInt));
}

ProtoWriter OnnxGraph::real(const char* name, float value) {
  return std::move(ProtoWriter().text(1, name).real32(2, value).integer(20, kFloat));
}

ProtoWriter OnnxGraph::integers(const char* name, const std::vector<int64_t>& values) {
  ProtoWriter a;
  a.text(1, name);
  for (const int64_t v : values) a.integer(8, v);
  return std::move(a.integer(20, kInts));
}

std::string OnnxGraph::node(const char* op, const std::vector<std::string>& inputs,
                            const std::vector<ProtoWriter>& attributes, const std::string& output,
                            const std::string& name) {
  const std::string counted = str(op, "_", count_++);
  const std::string out = output.empty() ? counted : output;
  ProtoWriter n;
  for (const std::string& i : inputs) n.text(1, i);
  n.text(2, out).text(3, name.empty() ? counted : name).text(4, op);
  for (const ProtoWriter& a : attributes) n.message(5, a);
  nodes_.push_back(n);
  return out;
}

std::string OnnxGraph::initializer(const Tensor& value, const std::string& name) {
  const std::string used = name.empty() ? str("constant_", count_++) : name;
  const bool integers = value.dtype() == DType::i64;
  const Tensor t = value.to(Device::cpu()).plain().to(integers ? DType::i64 : DType::f32);
  ProtoWriter p;
  for (int i = 0; i < t.rank(); ++i) p.integer(1, t.size(i));
  p.integer(2, integers ? kI64 : kF32).text(8, used);
  p.text(9, {static_cast<const char*>(t.raw()), t.nbytes()});
  initializers_.push_back(p);
  return used;
}

void OnnxGraph::input(const std::string& name, const std::vector<int64_t>& sizes) {
  inputs_.push_back(value_info(name, sizes));
}

void OnnxGraph::output(const std::string& name, const std::vector<int64_t>& sizes) {
  outputs_.push_back(value_info(name, sizes));
}

std::string OnnxGraph::model(
    const std::string& graph_name, int64_t opset,
    const std::vector<std::pair<std::string, std::string>>& metadata) const {
  if (opset < 13 || opset > 17)
    throw UsageError(str("onnx: opset ", opset, " is not one of 13 to 17"));
  ProtoWriter graph, model, import;
  for (const ProtoWriter& n : nodes_) graph.message(1, n);
  graph.text(2, graph_name);
  for (const ProtoWriter& p : initializers_) graph.message(5, p);
  for (const ProtoWriter& i : inputs_) graph.message(11, i);
  for (const ProtoWriter& o : outputs_) graph.message(12, o);
  model.integer(1, opset < 15 ? 7 : 8).text(2, "mtcki").message(7, graph);
  model.message(8, import.text(1, "").integer(2, opset));
  for (const auto& [key, value] : metadata) {
    ProtoWriter property;
    model.message(14, property.text(1, key).text(2, value));
  }
  return model.bytes();
}

}  // namespace mtcki

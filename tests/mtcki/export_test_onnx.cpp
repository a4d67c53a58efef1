// tests/mtcki/onnx_reader.h: a reader of protocol buffers and an interpreter.
#include <cstring>
#include <stdexcept>
#include <utility>

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/pool.h"
#include "tests/mtcki/onnx_reader.h"

namespace mtcki::testing {

namespace {

struct Field {
  int64_t number = 0;
  int64_t integer = 0;  // wire type 0
  std::string bytes;    // wire types 2 and 5
};

std::vector<Field> fields(const std::string& message) {
  std::vector<Field> out;
  size_t at = 0;
  const auto byte = [&] {
    if (at >= message.size()) throw std::runtime_error("truncated message");
    return static_cast<uint8_t>(message[at++]);
  };
  const auto varint = [&] {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t b = byte();
      v |= static_cast<uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return v;
    }
  };
  while (at < message.size()) {
    const uint64_t tag = varint();
    Field f;
    f.number = static_cast<int64_t>(tag >> 3);
    size_t length = 0;
    switch (tag & 7) {
      case 0:
        f.integer = static_cast<int64_t>(varint());
        break;
      case 2:
        length = varint();
        break;
      case 5:
        length = 4;
        break;
      default:
        throw std::runtime_error("unexpected wire type");
    }
    if (length > message.size() - at) throw std::runtime_error("truncated field");
    f.bytes = message.substr(at, length);
    at += length;
    out.push_back(f);
  }
  return out;
}

OnnxNode read_node(const std::string& bytes) {
  OnnxNode node;
  for (const Field& f : fields(bytes)) {
    if (f.number == 1) node.inputs.push_back(f.bytes);
    if (f.number == 2) node.outputs.push_back(f.bytes);
    if (f.number == 4) node.op = f.bytes;
    if (f.number != 5) continue;
    std::string name;
    int64_t type = 0;
    std::vector<int64_t> ints;
    float real = 0;
    for (const Field& a : fields(f.bytes)) {
      if (a.number == 1) name = a.bytes;
      if (a.number == 2) std::memcpy(&real, a.bytes.data(), 4);
      if (a.number == 3 || a.number == 8) ints.push_back(a.integer);
      if (a.number == 20) type = a.integer;
    }
    if (type == 1)
      node.reals[name] = real;
    else
      node.ints[name] = ints;
  }
  return node;
}

std::pair<std::string, Tensor> read_tensor(const std::string& bytes) {
  std::string name, raw;
  std::vector<int64_t> dims;
  int64_t type = 0;
  for (const Field& f : fields(bytes)) {
    if (f.number == 1) dims.push_back(f.integer);
    if (f.number == 2) type = f.integer;
    if (f.number == 8) name = f.bytes;
    if (f.number == 9) raw = f.bytes;
  }
  if (type != 1 && type != 7) throw std::runtime_error(name + ": neither float nor int64");
  Shape shape;
  for (const int64_t d : dims) shape.push_back(d);
  Tensor t = Tensor::empty(shape, type == 1 ? DType::f32 : DType::i64);
  if (raw.size() != t.nbytes()) throw std::runtime_error(name + ": raw_data does not fit dims");
  std::memcpy(t.raw(), raw.data(), raw.size());
  return {name, t};
}

std::string first_text(const std::string& bytes, int64_t number) {
  for (const Field& f : fields(bytes))
    if (f.number == number) return f.bytes;
  return "";
}

Tensor every_other_pixel(const Tensor& x, const OnnxNode& n,
                         const std::map<std::string, Tensor>& values) {
  const auto steps = values.at(n.inputs[4]).to_vector<int64_t>();
  const auto axes = values.at(n.inputs[3]).to_vector<int64_t>();
  if (axes != std::vector<int64_t>{2, 3} || steps[0] != steps[1] ||
      values.at(n.inputs[1]).to_vector<int64_t>() != std::vector<int64_t>{0, 0})
    throw std::runtime_error("Slice: only whole images with one step");
  return subsample_pad_channels(x, steps[0], 0, 0);
}

Tensor evaluate(const OnnxNode& n, const std::map<std::string, Tensor>& values) {
  const auto in = [&](size_t i) {
    const auto it = values.find(n.inputs.at(i));
    if (it == values.end()) throw std::runtime_error(n.inputs[i] + " is not computed yet");
    return it->second;
  };
  const auto ints = [&](const char* name) { return n.ints.at(name); };
  if (n.op == "Relu") return relu(in(0));
  if (n.op == "Add") return add(in(0), in(1));
  if (n.op == "Conv") {
    const auto s = ints("strides"), p = ints("pads"), k = ints("kernel_shape");
    if (k != std::vector<int64_t>{in(1).size(2), in(1).size(3)} || p.size() != 4)
      throw std::runtime_error("Conv: kernel_shape is not the weight's");
    Conv2dOptions o;
    o.stride = {s[0], s[1]};
    o.padding = {p[0], p[1]};
    return conv2d(in(0), in(1), n.inputs.size() > 2 ? in(2) : Tensor(), o);
  }
  if (n.op == "BatchNormalization")
    return batch_norm_eval(in(0), in(1), in(2), in(3), in(4),
                           static_cast<double>(n.reals.at("epsilon")));
  if (n.op == "MaxPool")
    return max_pool2d(in(0), Pool2dOptions(ints("kernel_shape")[0], ints("strides")[0],
                                           n.ints.count("pads") ? ints("pads")[0] : 0))
        .y;
  if (n.op == "GlobalAveragePool") return adaptive_avg_pool2d(in(0), 1, 1);
  if (n.op == "Flatten") return in(0).reshape({in(0).size(0), -1});
  if (n.op == "Gemm" && ints("transB") == std::vector<int64_t>{1})
    return linear(in(0), in(1), in(2));
  if (n.op == "Slice") return every_other_pixel(in(0), n, values);
  if (n.op == "Pad") {
    const auto p = in(1).to_vector<int64_t>();
    const Shape s = in(0).shape();
    const Tensor x = in(0).plain();
    return cat(std::vector<Tensor>{Tensor::zeros({s[0], p[1], s[2], s[3]}), x,
                                   Tensor::zeros({s[0], p[5], s[2], s[3]})},
               1);
  }
  throw std::runtime_error("operator " + n.op + " is not known here");
}

}  // namespace

int64_t OnnxModel::count(const std::string& op) const {
  int64_t n = 0;
  for (const OnnxNode& node : nodes) n += node.op == op ? 1 : 0;
  return n;
}

OnnxModel read_onnx(const std::string& bytes) {
  OnnxModel m;
  for (const Field& f : fields(bytes)) {
    if (f.number == 1) m.ir_version = f.integer;
    if (f.number == 8)
      for (const Field& o : fields(f.bytes))
        if (o.number == 2) m.opset = o.integer;
    if (f.number == 14) m.metadata[first_text(f.bytes, 1)] = first_text(f.bytes, 2);
    if (f.number != 7) continue;
    for (const Field& g : fields(f.bytes)) {
      if (g.number == 1) m.nodes.push_back(read_node(g.bytes));
      if (g.number == 2) m.graph_name = g.bytes;
      if (g.number == 5) m.initializers.insert(read_tensor(g.bytes));
      if (g.number == 11) m.inputs.push_back(first_text(g.bytes, 1));
      if (g.number == 12) m.outputs.push_back(first_text(g.bytes, 1));
    }
  }
  return m;
}

Tensor run_onnx(const OnnxModel& model, const Tensor& input) {
  std::map<std::string, Tensor> values = model.initializers;
  values[model.inputs.at(0)] = input;
  for (const OnnxNode& n : model.nodes) {
    if (values.count(n.outputs.at(0))) throw std::runtime_error(n.outputs[0] + " computed twice");
    values[n.outputs[0]] = evaluate(n, values);
  }
  return values.at(model.outputs.at(0));
}

}  // namespace mtcki::testing

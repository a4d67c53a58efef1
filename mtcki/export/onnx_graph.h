// Writing an ONNX model node by node: the messages of onnx.proto, without the library.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "data/formats/protobuf.h"
#include "tensor/tensor.h"

namespace mtcki {

namespace nn {
class GraphClassifier;
}

class OnnxGraph {
 public:
  // Attributes of a node.
  static data::ProtoWriter integer(const char* name, int64_t value);
  static data::ProtoWriter real(const char* name, float value);
  static data::ProtoWriter integers(const char* name, const std::vector<int64_t>& values);

  // Returns the name of the output; names that are not given count up: "Relu_7".
  std::string node(const char* op, const std::vector<std::string>& inputs,
                   const std::vector<data::ProtoWriter>& attributes = {},
                   const std::string& output = "", const std::string& name = "");
  // A constant tensor, f32 or i64; returns its name ("constant_7" when none is given).
  std::string initializer(const Tensor& value, const std::string& name = "");
  // f32 with a free first dimension N.
  void input(const std::string& name, const std::vector<int64_t>& sizes);
  void output(const std::string& name, const std::vector<int64_t>& sizes);

  // The bytes of the .onnx file. opset 13..17; the IR version is the one that came with it.
  std::string model(const std::string& graph_name, int64_t opset,
                    const std::vector<std::pair<std::string, std::string>>& metadata = {}) const;

 private:
  std::vector<data::ProtoWriter> nodes_, initializers_, inputs_, outputs_;
  int count_ = 0;
};

// The nodes of a network that came from an ONNX file, from "images" to "logits".
void write_imported(nn::GraphClassifier& net, OnnxGraph* onnx);

}  // namespace mtcki

// Runs the ONNX models that the program writes, on this project's ops: what the file says is
// compared with what the network computes. Only the operators of mtcki/export/onnx.cpp.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki::testing {

struct OnnxNode {
  std::string op;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, std::vector<int64_t>> ints;  // also single integers
  std::map<std::string, float> reals;
};

struct OnnxModel {
  int64_t ir_version = 0, opset = 0;
  std::string graph_name;
  std::vector<OnnxNode> nodes;
  std::map<std::string, Tensor> initializers;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, std::string> metadata;

  int64_t count(const std::string& op) const;
};

// Throws std::runtime_error for what the wire format does not allow.
OnnxModel read_onnx(const std::string& bytes);
// The single input and output; nodes in file order. std::runtime_error: a value used before it is
// computed, an operator that is not known here.
Tensor run_onnx(const OnnxModel& model, const Tensor& input);

}  // namespace mtcki::testing

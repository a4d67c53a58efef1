// An ONNX model as it stands in its file: nodes, constants, inputs and outputs. What the operators
// mean is not known here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/formats/file_bytes.h"
#include "data/formats/state_file.h"
#include "tensor/tensor.h"

namespace mtcki::data {

// One of the kinds that operators here have; the others stay at their defaults.
struct OnnxAttribute {
  int64_t integer = 0;
  float real = 0;
  std::string text;
  std::vector<int64_t> integers;
  std::vector<float> reals;
  Tensor tensor;
  int64_t type = 0;  // of the tensor, as TensorProto.DataType
};
struct OnnxNode {
  std::string op, name;                      // op: "Conv"; of other domains "domain::op"
  std::vector<std::string> inputs, outputs;  // "": not given
  std::map<std::string, OnnxAttribute> attributes;
};
struct OnnxValue {
  std::string name;
  std::vector<int64_t> sizes;  // -1: free
  bool is_real = true;         // f16, bf16, f32 or f64
};
struct OnnxModel {
  int64_t opset = 0;
  std::vector<OnnxNode> nodes;                 // in the file's order, which is that of computing
  std::map<std::string, Tensor> initializers;  // floats as f32, integers and booleans as i64
  std::map<std::string, int64_t> types;        // of these in the file, as TensorProto.DataType
  std::vector<OnnxValue> inputs, outputs;      // inputs without the initializers
  std::map<std::string, std::string> metadata;
};

// Whether its images are [N,H,W,C], as TensorFlow has them: by the sizes of its input, and where
// these are free, by its first operator.
bool has_channels_last(const OnnxModel& model);

bool is_onnx(const std::string& path);  // by its name, as the format has no mark
// DataError: damage, sizes that do not fit, element types other than numbers. Memory is bounded by
// the file: eight bytes for one at most. `folder`: where files with external data are, which must
// be plain names; empty: there are none.
OnnxModel parse_onnx(Bytes content, const std::string& file_name, const std::string& folder = "");
OnnxModel read_onnx(const std::string& path);
// Its constants, and what its metadata says of the images (mean and std, as our export writes them)
// under the names of our own files.
StateFile read_onnx_state(const std::string& path);
// The files of external data that it names, beside it.
std::vector<std::string> onnx_data_files(const std::string& path);

}  // namespace mtcki::data

// A classifier as ONNX for inference elsewhere: ONNX Runtime, OpenCV, TensorRT.
#pragma once

#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

struct OnnxOptions {
  int64_t opset = 13;                     // 13..17
  bool fold_bn = false;                   // see below
  std::vector<std::string> classes = {};  // their names, in order; empty: not known
};

// Input "images" f32 [N,C,H,W], already normalised (mean, std and, as a
// JSON list, the names of the classes are in the model's metadata),
// output "logits" [N,K]; N is free. The graph is that of eval mode: batch norm with its running
// statistics. fold_bn: a batch norm whose input comes from one convolution, which feeds nothing
// else, disappears into that convolution: with s = gamma/sqrt(var + eps) its weights become s·W and
// its bias s·(b - mean) + beta (computed in f64). Others, those after an addition, stay. A sum of
// such convolutions, and of a batch norm alone, of one value becomes one convolution (RepVGG).
std::string onnx_model(nn::Classifier& net, const nn::ModelSpec& spec,
                       const data::Normalization& normalization, const OnnxOptions& options = {});
void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization, const OnnxOptions& options = {});

}  // namespace mtcki

// A classifier as ONNX (opset 13, IR 7) for inference elsewhere: ONNX Runtime, OpenCV, TensorRT.
#pragma once

#include <string>

#include "data/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

// Input "images" f32 [N,C,H,W], already normalised (mean and std are in the model's metadata),
// output "logits" [N,K]; N is free. The graph is that of eval mode: batch norm with its running
// statistics.
std::string onnx_model(nn::Classifier& net, const nn::ModelSpec& spec,
                       const data::Normalization& normalization);
void write_onnx(const std::string& path, nn::Classifier& net, const nn::ModelSpec& spec,
                const data::Normalization& normalization);

}  // namespace mtcki

// A classifier from an ONNX file, as a tree of our layers with gradients; and such a network in the
// metadata of our own weight files. docs/teachers.md lists the operators.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/formats/onnx_file.h"
#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "nn/models/graph.h"

namespace mtcki {

// The registry name of networks that come from a file instead.
inline constexpr char kGraphModel[] = "onnx";

// Of [N, in_channels, image_size, image_size]. Features are the input of the last linear layer (the
// logits where there is none); stages, the inputs of the first convolution at each smaller size.
// DataError: damage; an operator that is not taken; images of another size or number of channels,
// logits of another number of classes. `notes`: what was left out or chosen.
std::unique_ptr<nn::GraphClassifier> import_onnx(const std::string& path, const nn::ModelSpec& spec,
                                                 std::vector<std::string>* notes = nullptr);
std::unique_ptr<nn::GraphClassifier> import_onnx(const std::string& path,
                                                 const data::OnnxModel& model,
                                                 const nn::ModelSpec& spec,
                                                 std::vector<std::string>* notes = nullptr);

// The graph as JSON, without its weights; and the network of it with the weights of a file.
// DataError: not such a graph, weights that are missing or of other sizes (before memory is taken).
std::string graph_json(const nn::GraphSpec& graph);
std::unique_ptr<nn::GraphClassifier> read_graph(const std::string& path, const std::string& json,
                                                const data::NamedTensors& tensors);

// What such a network does to a channel's values before its first layer, scale x + shift, where it
// normalises its images itself; empty: it does not, or it is another network.
struct InputScaling {
  std::vector<double> scale, shift;
};
InputScaling input_scaling(nn::Classifier& net);
// With which mean and std it takes images of [0, 1] then: as they are, or as 0 to 255, whichever
// brings them nearer to [-1, 1].
data::Normalization normalization_before(const InputScaling& own);

// What to do about a network without batch norms, whose exporter folded them away.
extern const char kKeepsBatchNorms[];

}  // namespace mtcki

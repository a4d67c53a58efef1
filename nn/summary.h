// What a network costs: one row per leaf layer of one forward, and totals.
#pragma once

#include <string>
#include <vector>

#include "nn/module.h"

namespace mtcki::nn {

struct LayerRow {
  std::string name, kind;  // "layer2.0.conv1", "Conv2d"
  Shape output;
  int64_t parameters = 0;
  double macs = 0;              // multiply-accumulates of convolutions and linear layers
  size_t activation_bytes = 0;  // of the output
};
struct ModelSummary {
  std::string kind;
  Shape input;
  std::vector<LayerRow> layers;  // in the order of the forward
  int64_t parameters = 0, trainable = 0;
  size_t parameter_bytes = 0, buffer_bytes = 0, activation_bytes = 0;
  double macs = 0;
  int64_t batch_norms = 0, batch_norm_channels = 0;  // layers, sum of their channels
  int64_t state_keys = 0;
  std::string table() const;  // text, one line per layer, then the totals
};

// Runs one forward in eval mode without gradients on zeros of shape `input` ([1,3,32,32]; for a
// generator [1, nz]); modes are restored and nothing is changed.
ModelSummary summarize(Module& module, const Shape& input);

}  // namespace mtcki::nn

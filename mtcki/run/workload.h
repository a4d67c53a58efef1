// The steps that `mtcki profile` and bench/ measure, on random data.
//
//   train      forward, cross-entropy, backward, SGD with momentum
//   inference  forward in eval mode, no gradients
//   inversion  the step of stage A without views and contrast: generator, frozen teachers,
//              cross-entropy and BN-statistics loss, backward to latents and generator, Adam
//   synthesis  the step of stage A as a run does it: also views, contrast with the history bank
//   distill    the step of stage B: frozen teachers, student, SGD
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "nn/precision.h"
#include "tensor/device.h"

namespace mtcki {

struct WorkloadOptions {
  std::string step = "train";
  std::string model = "wrn16_1";      // train, inference: the network; distill: the student
  std::vector<std::string> teachers;  // inversion, synthesis, distill; empty: `model`
  int64_t batch = 128, classes = 10, channels = 3, size = 32;
  int64_t bank = 1024;  // synthesis: rows of the history bank; at least one batch
  Device device;
  nn::Precision precision = nn::Precision::f32;
  bool recompute = false;  // Module::set_recompute of what is trained
  bool graph = false;      // on the GPU: captured and repeated (StepGraph)
};

std::vector<std::string> workload_steps();

// One call is one step; it returns the loss (inference: the logits), on the device. UsageError for
// an unknown step. Everything it needs is kept alive inside.
using Workload = std::function<Variable()>;
Workload make_workload(const WorkloadOptions& options);

}  // namespace mtcki

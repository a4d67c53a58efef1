// Internal to the native device: a Convolution as a cuDNN graph, the engines that can run it, and
// which of them the rules allow. The check without a GPU (tests/tensor/ops/conv/cudnn_plans_test.cpp) asks the same
// functions as convolve().
#pragma once

#include <utility>

#include "tensor/cuda/conv.h"
#include "tensor/cuda/native/graph_api.h"

namespace mtcki::cuda {

// Names of the three tensors in a graph and in its execution.
enum TensorId : int64_t { kTensorX = 1, kTensorW = 2, kTensorY = 3 };

Descriptor conv_graph(const Convolution& c);

// What has to be stored of an engine configuration to make it again.
struct EngineChoice {
  int64_t engine = -1;
  std::vector<std::pair<int64_t, int64_t>> knobs;  // type, value
  friend bool operator==(const EngineChoice& a, const EngineChoice& b) {
    return a.engine == b.engine && a.knobs == b.knobs;
  }
};
struct Candidate {
  Descriptor config;
  EngineChoice choice;
  int64_t workspace = 0;  // bytes
  bool deterministic = true, tensor_core = false;
  bool reduced = false;  // rounds its inputs, or adds up in less than f32
};

// Best first. `device`: of device_of_process or device_from_json.
std::vector<Candidate> heuristics(const Descriptor& graph, const Descriptor& device,
                                  cudnnBackendHeurMode_t mode);
// Whether the rules of the convolution allow it: determinism, strict f32, workspace.
bool allowed(const Convolution& c, const Candidate& candidate);
// Those that are allowed: of mode A, then fallback.
std::vector<Candidate> candidates(const Convolution& c, const Descriptor& graph,
                                  const Descriptor& device);
// The configuration that a stored choice names; throws CudnnError when there is none any more.
Candidate from_choice(const Descriptor& graph, const Descriptor& device,
                      const EngineChoice& choice);

struct Plan {
  Descriptor descriptor;
  EngineChoice choice;
  int64_t workspace = 0;
  std::string name() const;  // "cudnn 67 ws 2.1 MiB"
};
Plan build_plan(const Candidate& candidate, const Descriptor& device);

}  // namespace mtcki::cuda

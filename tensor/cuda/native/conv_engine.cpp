#include "tensor/cuda/native/conv_engine.h"

#include <algorithm>

#include "tensor/allocator.h"

namespace mtcki::cuda {

namespace {

using Dims = std::vector<int64_t>;

cudnnDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

// dims are N,C,H,W (weights K,C,R,S); the strides say that C is innermost.
Descriptor tensor(TensorId id, const Dims& dims, DType dtype) {
  const Dims strides{dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
  return Descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, static_cast<int64_t>(id))
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type_of(dtype))
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16})
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, strides)
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, false)
      .finalize("tensor");
}

Descriptor operation(const Convolution& c) {
  const ConvProblem& d = c.problem;
  const Descriptor x = tensor(kTensorX, {d.n, d.c, d.h, d.w}, c.dtype);
  const Descriptor w = tensor(kTensorW, {d.k, d.c / d.groups, d.r, d.s}, c.dtype);
  const Descriptor y = tensor(kTensorY, {d.n, d.k, d.p, d.q}, c.dtype);
  const Descriptor conv =
      Descriptor(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)
          .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
          .set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
          .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
          .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, Dims{d.pad_h, d.pad_w})
          .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, Dims{d.pad_h, d.pad_w})
          .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, Dims{d.dil_h, d.dil_w})
          .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, Dims{d.stride_h, d.stride_w})
          .finalize("convolution");
  switch (c.pass) {
    case ConvPass::forward:
      return Descriptor(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0f)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f)
          .finalize("forward convolution");
    case ConvPass::grad_input:
      return Descriptor(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, y)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, w)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, x)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, conv)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, 1.0f)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, c.accumulate ? 1.0f : 0.0f)
          .finalize("input gradient");
    default:
      return Descriptor(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, y)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, x)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, w)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, conv)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, 1.0f)
          .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, 0.0f)
          .finalize("weight gradient");
  }
}

std::vector<std::pair<int64_t, int64_t>> knobs_of(const Descriptor& config) {
  // Asking for the count alone answers 0, so room for every kind of knob is offered.
  std::vector<Descriptor> choices;
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i)
    choices.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
  const int64_t n = config.get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, choices);
  std::vector<std::pair<int64_t, int64_t>> out;
  for (int64_t i = 0; i < n; ++i) {
    const Descriptor& k = choices[static_cast<size_t>(i)];
    const auto type =
        k.values<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1);
    if (!type.empty()) out.emplace_back(type[0], k.integer(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 0));
  }
  return out;
}

void read_engine(const Descriptor& engine, Candidate& c) {
  c.choice.engine = engine.integer(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
  for (const cudnnBackendNumericalNote_t note : engine.values<cudnnBackendNumericalNote_t>(
           CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
           CUDNN_NUMERICAL_NOTE_TYPE_COUNT)) {
    if (note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) c.deterministic = false;
    if (note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE) c.tensor_core = true;
    if (note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
        note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
      c.reduced = true;
  }
}

}  // namespace

Descriptor conv_graph(const Convolution& c) {
  return Descriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation(c))
      .finalize("operation graph");
}

std::vector<Candidate> heuristics(const Descriptor& graph, const Descriptor& device,
                                  cudnnBackendHeurMode_t mode) {
  const Descriptor h = Descriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
                           .set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
                           .set(CUDNN_ATTR_ENGINEHEUR_MODE, mode)
                           .set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device)
                           .finalize("heuristics");
  std::vector<Descriptor> configs;
  const int64_t n = h.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, configs);
  for (int64_t i = 0; i < n; ++i) configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  configs.resize(static_cast<size_t>(n == 0 ? 0 : h.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, configs)));
  std::vector<Candidate> out;
  for (const Descriptor& config : configs) {
    Candidate c;
    c.config = config;
    std::vector<Descriptor> engine{Descriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR)};
    config.get(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    read_engine(engine[0], c);
    c.workspace = config.integer(CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, 0);
    out.push_back(std::move(c));
  }
  return out;
}

bool allowed(const Convolution& c, const Candidate& candidate) {
  if (c.deterministic && !candidate.deterministic) return false;
  if (c.dtype == DType::f32 && c.math == Math::strict &&
      (candidate.tensor_core || candidate.reduced))
    return false;
  return candidate.workspace <= kConvWorkspace;
}

std::vector<Candidate> candidates(const Convolution& c, const Descriptor& graph,
                                  const Descriptor& device) {
  std::vector<Candidate> out;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK})
    for (Candidate& candidate : heuristics(graph, device, mode)) {
      if (!allowed(c, candidate)) continue;
      candidate.choice.knobs = knobs_of(candidate.config);
      out.push_back(std::move(candidate));
    }
  return out;
}

Candidate from_choice(const Descriptor& graph, const Descriptor& device,
                      const EngineChoice& choice) {
  const Descriptor engine = Descriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR)
                                .set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph)
                                .set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, choice.engine)
                                .set(CUDNN_ATTR_ENGINE_DEVICEPROP, device)
                                .finalize("engine");
  std::vector<Descriptor> knobs;
  for (const auto& [type, value] : choice.knobs)
    knobs.push_back(
        Descriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)
            .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, static_cast<cudnnBackendKnobType_t>(type))
            .set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value)
            .finalize("knob"));
  Candidate c;
  c.config = Descriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  c.config.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!knobs.empty()) c.config.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
  c.config.finalize("engine configuration");
  read_engine(engine, c);
  c.choice = choice;
  c.workspace = c.config.integer(CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, 0);
  return c;
}

std::string Plan::name() const {
  return str("cudnn ", choice.engine,
             workspace ? " ws " + human_bytes(static_cast<size_t>(workspace)) : std::string());
}

Plan build_plan(const Candidate& candidate, const Descriptor& device) {
  Plan p;
  p.descriptor = Descriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
                     .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, candidate.config)
                     .set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device)
                     .finalize("execution plan");
  p.choice = candidate.choice;
  p.workspace = p.descriptor.integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 0);
  return p;
}

}  // namespace mtcki::cuda

// Convolution by cuDNN; no CUDA header is needed to include this. native/: cuDNN's graph API;
// on the emulated GPU there is none, convolve() is always false.
//
// A plan is an engine of cuDNN with its settings for one convolution. It is looked for once per
// convolution: in the plan cache file, else among cuDNN's candidates (heuristics, then fallback)
// that do not break the rules of the Convolution. The first of them is taken; `autotune` times all
// of them (up to about 45) and takes the fastest. A plan that fails to be built or to run is
// remembered and never tried again. No plan is looked for while a graph is captured.
//
// The file keeps the choices: ~/.cache/mtcki/cudnn_plans.json (or below $XDG_CACHE_HOME), elsewhere
// by MTCKI_PLAN_CACHE=PATH, nowhere by MTCKI_PLAN_CACHE=off. A damaged file is ignored with one
// warning.
#pragma once

#include <string>

#include "tensor/conv_problem.h"
#include "tensor/dtype.h"
#include "tensor/math_mode.h"

namespace mtcki::cuda {

struct Convolution {
  ConvProblem problem;
  ConvPass pass = ConvPass::forward;
  DType dtype = DType::f32;  // of all three tensors: f32 or bf16
  Math math = Math::strict;
  bool deterministic = true;
  bool accumulate = false;  // grad_input: added to what x holds
};
inline constexpr int64_t kConvWorkspace = int64_t{256} << 20;  // bytes that a plan may ask for

// Computes the tensor that `pass` names from the other two, on the current stream: x and y
// channels_last, w OHWI. False when cuDNN has no plan; `kernel` receives the plan's name if not
// null. CaptureError when the plan is not known yet and a graph is being captured.
bool convolve(const Convolution& c, bool autotune, void* x, void* w, void* y, std::string* kernel);

}  // namespace mtcki::cuda

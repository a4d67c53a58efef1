// Internal: what the convolution ops and the kernel files share. Kernels receive
// checked arguments and allocated outputs.
#pragma once

#include <cstdint>
#include <limits>

#include "tensor/conv_problem.h"
#include "tensor/dtype.h"
#include "tensor/layout.h"
#include "tensor/scratch.h"

namespace mtcki {

// f32 activations reach the kernels in one of two forms: blocked when the channel count allows,
// else plain. The layout follows from the channel count alone.
inline bool is_blocked(int64_t channels) { return channels % kChannelBlock == 0; }

// What a forward kernel does with a sum when it stores it, in y's layout:
//   y = (sum + bias[k]) * scale[k] + shift[k] + residual, negative values to zero with relu
// Null pointers: nothing is added, or the scale is 1.
struct ConvEpilogue {
  const float* bias = nullptr;
  const float* scale = nullptr;  // together with shift
  const float* shift = nullptr;
  const float* residual = nullptr;
  bool relu = false;

  bool only_bias() const { return !scale && !residual && !relu; }
  bool any() const { return bias || !only_bias(); }
  // The same for outputs that start at channel k and y[at].
  ConvEpilogue from(int64_t k, int64_t at) const {
    const auto move = [](const float* p, int64_t by) { return p ? p + by : nullptr; };
    return {move(bias, k), move(scale, k), move(shift, k), move(residual, at), relu};
  }
  // For the output of channel k at y[at].
  float operator()(float sum, int64_t k, int64_t at) const {
    float v = bias ? sum + bias[k] : sum;
    if (scale) v = v * scale[k] + shift[k];
    if (residual) v += residual[at];
    return relu && v < 0 ? 0 : v;
  }
};

// What a kernel reads in place of x, a batch norm and ReLU before it; the padding around it stays
// zero:
//   min(relu((x + offset[c]) * scale[c] + shift[c]), most)
struct ConvPrologue {
  const float *offset = nullptr, *scale = nullptr, *shift = nullptr;
  float most = std::numeric_limits<float>::infinity();  // else: see ConvKernel::bounded
};

// Plain loops over plain memory: the definition, and the path of f64 and of groups that are no
// whole channel blocks. T: float, double.
namespace conv_ref {
template <class T>
void forward(const ConvProblem& d, const T* x, const T* w, const T* bias, T* y);
template <class T>
void grad_input(const ConvProblem& d, const T* gy, const T* w, T* gx);
template <class T>
void grad_weight(const ConvProblem& d, const T* gy, const T* x, T* gw);
}  // namespace conv_ref

// oneDNN, f32, groups == 1. Activations in the layout of is_blocked(), weights plain OIHW.
namespace conv_onednn {
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y);
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx);
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw);
// True when oneDNN would run its plain reference loops (a thousand times slower).
bool is_slow(const ConvProblem& d, ConvPass pass);
}  // namespace conv_onednn

// oneDNN, bf16 activations in the layout of preferred_layout(), sums in f32; weights and bias f32,
// of which the weights are rounded to bf16; an epilogue holds no more than a bias. For CPUs with
// bf16 arithmetic.
namespace conv_bf16 {
bool available();
bool has_amx();
bool applies(const ConvProblem& d, ConvPass pass);
void forward(const ConvProblem& d, const bfloat16* x, const float* w, const ConvEpilogue& epilogue,
             bfloat16* y);
void grad_input(const ConvProblem& d, const bfloat16* gy, const float* w, bfloat16* gx);
void grad_weight(const ConvProblem& d, const bfloat16* gy, const bfloat16* x, float* gw);
}  // namespace conv_bf16

// Built-in, same contract as conv_onednn; any kernel, stride, padding and dilation.
namespace conv_direct {
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y);
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx);
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw);
}  // namespace conv_direct

// Built-in, groups > 1, same contract. One filter per channel; and groups of whole channel
// blocks, as one ordinary convolution each. An epilogue may hold anything.
namespace conv_depthwise {
bool applies(const ConvProblem& d);
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y);
void forward_from(const ConvProblem& d, const float* x, const ConvPrologue& prologue,
                  const float* w, const ConvEpilogue& epilogue, float* y);
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx);
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw);
void grad_weight_from(const ConvProblem& d, const float* gy, const float* x,
                      const ConvPrologue& prologue, float* gw);
}  // namespace conv_depthwise
namespace conv_groups {
bool applies(const ConvProblem& d);
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y);
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx);
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw);
}  // namespace conv_groups

// Built-in 1x1 at stride 1 on whole vectors of pixels, where one of the channel counts fills no whole
// blocks; both activations plain.
namespace conv_pointwise {
bool applies(const ConvProblem& d, ConvPass pass);
void forward(const ConvProblem& d, const float* x, const float* w, const ConvEpilogue& epilogue,
             float* y);
void grad_input(const ConvProblem& d, const float* gy, const float* w, float* gx);
void grad_weight(const ConvProblem& d, const float* gy, const float* x, float* gw);
}  // namespace conv_pointwise

// Built-in Winograd. applies(): 3x3 with both channel counts blocked, at stride 1 with padding 0..2
// or at stride 2 with padding 1.
namespace conv_winograd {
bool applies(const ConvProblem& d);
// y may be the epilogue's residual.
template <class T>
void forward(const ConvProblem& d, const T* x, const float* w, const ConvEpilogue& epilogue, T* y);
void forward_from(const ConvProblem& d, const float* x, const ConvPrologue& prologue,
                  const float* w, const ConvEpilogue& epilogue, float* y);
template <class T>
void grad_input(const ConvProblem& d, const T* gy, const float* w, T* gx);
// Plus sum, which may be gx itself.
void grad_input_plus(const ConvProblem& d, const float* gy, const float* w, const float* sum,
                     float* gx);
template <class T>
void grad_weight(const ConvProblem& d, const T* gy, const T* x, float* gw);
void grad_weight_from(const ConvProblem& d, const float* gy, const float* x,
                      const ConvPrologue& prologue, float* gw);
}  // namespace conv_winograd

}  // namespace mtcki

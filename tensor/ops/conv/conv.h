// 2-d convolution (cross-correlation, as everywhere in deep learning) and its adjoint.
//
//   y[n,k,p,q] = bias[k] + sum_{c,i,j} x[n, c, p*s - pad + i*dil, q*s - pad + j*dil] w[k,c,i,j]
//
// x [N,C,H,W], w [K,C/groups,R,S], y [N,K,P,Q] with P = (H + 2 pad - dil(R-1) - 1)/s + 1.
// CPU, f32: y comes in preferred_layout (blocked where K allows); plain inputs with few channels
// (images) are taken as they are, and so are channels that fill no whole blocks in 1x1 and depthwise
// kernels. f64, and groups other than depthwise or of whole blocks: plain.
// CPU, bf16: in preferred_layout as well; by Winograd with f32 arithmetic, by oneDNN where
// bf16_kernels(), else computed as f32.
// CUDA: y is channels_last; cuDNN, or im2col and a GEMM; bf16 weight gradients of few channels by
// kernels of our own. A weight in channels_last is read as it is (beside bf16 activations: its bf16
// copy), any other in a converted copy.
// Beside bf16 activations w and bias may be f32; they are rounded where the kernels read them.
// Errors: ShapeError on rank, channel or group mismatch, kernel larger than the padded input.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "tensor/kernels/settings.h"
#include "tensor/math_mode.h"
#include "tensor/ops/norm.h"
#include "tensor/tensor.h"

namespace mtcki {

struct Conv2dOptions {
  std::array<int64_t, 2> stride{1, 1};
  std::array<int64_t, 2> padding{0, 0};
  std::array<int64_t, 2> dilation{1, 1};
  int64_t groups = 1;
  Math math = Math::strict;
  // The weight never changes again (frozen teachers): captured steps then read the copy of it that
  // was made before them. Not set, every captured step makes its copies anew, except those that the
  // optimiser's update writes along with the weight (weight_copies.h).
  bool constant_weight = false;

  Conv2dOptions() = default;
  Conv2dOptions(int64_t s, int64_t p) : stride{s, s}, padding{p, p} {}
};

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o = {});

// What a convolution does besides, in one pass:
//   act(batch_norm(conv2d(relu(batch_norm(x)), w, bias)) + residual)
// Every part may be absent (the inner ReLU goes with its batch norm). The f32 kernels of the CPU
// apply it where they load x and store y, without passes over memory of its own; elsewhere, and for
// leaky_relu, it is the ops one after the other; act's bound takes a pass. y may take the memory of
// a residual that nobody else sees.
struct ConvFusion {
  struct BatchNorm {
    Tensor weight, bias, mean, var;  // [C] before, [K] behind
    double eps = 0;
    Tensor invstd = {};                    // in place of var and eps: of batch_norm_statistics
    Activation relu = Activation::relu();  // behind norm_before; kernels do relu, bounded_relu
  };
  std::optional<BatchNorm> norm_before;
  std::optional<BatchNorm> norm;
  Tensor residual;  // y's shape
  Activation act;
};
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o,
              ConvFusion fusion);
// Whether a batch norm and this ReLU before the convolution cost the kernels of forward and weight
// gradient no pass of their own.
bool conv2d_normalises(const Tensor& x, const Shape& w_shape, const Conv2dOptions& o = {},
                       Activation relu = Activation::relu());
// sum: another gradient of x, which the result includes and whose memory it may take.
Tensor conv2d_grad_input(const Tensor& gy, const Tensor& w, const Shape& x_shape,
                         const Conv2dOptions& o = {}, Tensor sum = {});
// dtype of the result: gy's, or f32 where gy is bf16. On CUDA it is channels_last. `accept_bf16`:
// where f32 is asked for, but the kernel stores bf16, bf16 will do. norm_before: as that of the
// forward, may be null.
Tensor conv2d_grad_weight(const Tensor& gy, const Tensor& x, const Shape& w_shape,
                          const Conv2dOptions& o = {}, std::optional<DType> dtype = {},
                          bool accept_bf16 = false,
                          const ConvFusion::BatchNorm* norm_before = nullptr);
// Sum over N, H, W -> [K].
Tensor conv2d_grad_bias(const Tensor& gy, std::optional<DType> dtype = {});

// Transposed convolution: the adjoint of conv2d with the same weight. w [C, K/groups, R, S] (IOHW),
// output size (H-1)*s - 2 pad + dil(R-1) + output_padding + 1.
struct ConvTranspose2dOptions : Conv2dOptions {
  std::array<int64_t, 2> output_padding{0, 0};
  ConvTranspose2dOptions() = default;
  ConvTranspose2dOptions(int64_t s, int64_t p) : Conv2dOptions(s, p) {}
};
Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& bias,
                        const ConvTranspose2dOptions& o = {});
// Gradients of conv_transpose2d: its input gradient is conv2d(gy, w), its weight gradient
// conv2d_grad_weight with the roles of x and gy exchanged.
Tensor conv_transpose2d_grad_input(const Tensor& gy, const Tensor& w,
                                   const ConvTranspose2dOptions& o = {});
Tensor conv_transpose2d_grad_weight(const Tensor& gy, const Tensor& x, const Shape& w_shape,
                                    const ConvTranspose2dOptions& o = {},
                                    std::optional<DType> dtype = {}, bool accept_bf16 = false);

// Whether bf16 convolutions and products run in bf16 on this CPU (sums in f32), which takes oneDNN
// and avx512_bf16. Else they are widened to f32.
bool bf16_kernels();
// Whether bf16 activations are channels_last on this CPU: AMX kernels want that, and are faster
// than Winograd. Else they have the layouts of f32's.
bool bf16_channels_last();
std::string onednn_version();  // "2.6.3", empty without oneDNN

}  // namespace mtcki

// Batch normalisation (Ioffe & Szegedy 2015), fused with a residual addition and an activation:
//
//   y = act( (x - mean)/sqrt(var + eps) * weight + bias + residual )
//
// x [N,C,H,W] or [N,C]; weight, bias, running_mean, running_var [C]; any layout. act none | relu |
// leaky_relu(slope) | bounded_relu(most) = min(relu, most). residual has x's shape or is undefined.
// Statistics accumulate in f64 per chunk. [C] operands have x's dtype; for bf16 they are f32 (what
// training uses) or bf16, their gradients likewise, and mean and invstd are f32.
#pragma once

#include "tensor/ops/gradient_sum.h"
#include "tensor/tensor.h"

namespace mtcki {

struct Activation {
  enum class Kind { none, relu, leaky_relu, bounded_relu };
  Kind kind = Kind::none;
  double parameter = 0.0;  // slope, most
  static Activation none() { return {}; }
  static Activation relu() { return {Kind::relu, 0.0}; }
  static Activation leaky_relu(double slope) { return {Kind::leaky_relu, slope}; }
  static Activation bounded_relu(double most) { return {Kind::bounded_relu, most}; }
};

struct BatchNormTrain {
  Tensor y;
  Tensor mean, invstd;  // [C], batch mean and 1/sqrt(biased var + eps)
};
// Uses batch statistics (biased variance) and moves the running ones, in place:
// running = (1-momentum)*running + momentum*batch, with the *unbiased* variance, as PyTorch.
// running_mean, running_var may be undefined. ShapeError when a channel has one value only.
BatchNormTrain batch_norm_train(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                const Tensor& running_mean, const Tensor& running_var,
                                double momentum, double eps, Activation act = {},
                                const Tensor& residual = {});
// Its mean and invstd, and what it does to the running statistics, without y.
struct BatchStatistics {
  Tensor mean, invstd;
};
BatchStatistics batch_norm_statistics(const Tensor& x, const Tensor& running_mean,
                                      const Tensor& running_var, double momentum, double eps);
// y of batch_norm_train once more, bit for bit, from the statistics that it returned; without a
// residual.
Tensor batch_norm_apply(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& mean, const Tensor& invstd, Activation act = {});
struct BatchNormGrads {
  Tensor x, weight, bias;
  Tensor residual;  // gy * act'(y): equals the gradient that entered the normalisation
};
// gathered: other gradients of x, which .x includes. gy's memory, or that of gathered, is reused
// for the result on the CPU when nobody else sees it. y: the forward's output, needed (defined)
// when act is not none and a residual was added; without a residual the mask is recomputed from x.
// want_*: gradients not wanted stay undefined.
BatchNormGrads batch_norm_train_grad(Tensor gy, const Tensor& x, const Tensor& weight,
                                     const Tensor& bias, const Tensor& mean, const Tensor& invstd,
                                     Activation act, const Tensor& y, bool want_x, bool want_params,
                                     bool want_residual, GradientSum gathered = {});

// Per-channel mean and *biased* variance over N, H, W, [C].
struct ChannelMoments {
  Tensor mean, var;
};
// The same as a pass over x leaves it: sums over parts of the rows. Who needs the moments merges
// the parts (moments_of, bn_statistics).
struct MomentSums {
  Tensor sums;    // f64 [parts, C, 2]: of x - origin and of (x - origin)^2
  Tensor origin;  // f64 [C]
  bool defined() const { return sums.defined(); }
};

// moments: receives those of x if not null, from the same pass.
Tensor batch_norm_eval(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& running_mean, const Tensor& running_var, double eps,
                       Activation act = {}, const Tensor& residual = {},
                       MomentSums* moments = nullptr);
// With frozen weight and bias only gy, the running statistics and the mask are needed: pass x
// undefined when act is none (want_params false), else x (or y when a residual was added).
BatchNormGrads batch_norm_eval_grad(Tensor gy, const Tensor& x, const Tensor& weight,
                                    const Tensor& bias, const Tensor& running_mean,
                                    const Tensor& running_var, double eps, Activation act,
                                    const Tensor& y, bool want_x, bool want_params,
                                    bool want_residual, GradientSum gathered = {});

ChannelMoments channel_moments(const Tensor& x);  // f32, f64 for f64 input
// In f64; count: values of a channel.
ChannelMoments moments_of(const MomentSums& sums, double count);

}  // namespace mtcki

// Fused multi-tensor optimiser updates: one pass over all parameters of a group, in place. What
// changes from step to step is a Scalar, so that a captured step can be repeated with other values.
// On the GPU f32 parameters also take bf16 gradients as they are, and the bf16 copies of them that
// convolutions and products read are written in the same pass (weight_copies.h).
#pragma once

#include <vector>

#include "tensor/scalar.h"
#include "tensor/tensor.h"

namespace mtcki {

struct SgdUpdate {
  Scalar lr = 0.1;
  double momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, decoupled = false;  // decoupled: p -= lr*wd*p, not through the momentum
  Scalar step = 1;        // 1-based: the first sets the buffers to the gradient, as PyTorch
  Scalar grad_scale = 1;  // multiplies gradients (clipping)
};
// buffers: as many as params when momentum != 0, else empty.
void sgd_update_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                 const std::vector<Tensor>& buffers, const SgdUpdate& u);

struct AdamUpdate {
  Scalar lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  // AdamW
  Scalar step = 1;         // 1-based, for the bias correction
  Scalar grad_scale = 1;
};
void adam_update_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                  const std::vector<Tensor>& exp_avg, const std::vector<Tensor>& exp_avg_sq,
                  const AdamUpdate& u);

// dst = decay*dst + (1-decay)*src for each pair (weight EMA).
void ema_update_(const std::vector<Tensor>& dst, const std::vector<Tensor>& src,
                 const Scalar& decay);
// sqrt(sum of squares) over all tensors. On the GPU the first waits for the value, the second
// leaves it there, as one f32.
double global_norm(const std::vector<Tensor>& tensors);
Tensor global_norm_tensor(const std::vector<Tensor>& tensors);
// The grad_scale that brings this norm down to max_norm, as torch.nn.utils.clip_grad_norm_:
// min(1, max_norm/(norm + 1e-6)), NaN where the norm is.
double clip_scale(double norm, double max_norm);
// The same of these gradients. Does not wait for the GPU. *norm: the norm itself, a scalar on the
// device of the gradients.
Scalar clip_scale(const std::vector<Tensor>& grads, double max_norm, Tensor* norm = nullptr);

}  // namespace mtcki

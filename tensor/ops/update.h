// Fused multi-tensor optimiser updates: one pass over all parameters of a group, in place.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

struct SgdUpdate {
  double lr = 0.1, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, decoupled = false;  // decoupled: p -= lr*wd*p, not through the momentum
  bool first_step = false;                   // momentum buffers are set to the gradient, as PyTorch
  double grad_scale = 1.0;                   // multiplies gradients (clipping)
};
// buffers: as many as params when momentum != 0, else empty.
void sgd_update_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                 const std::vector<Tensor>& buffers, const SgdUpdate& u);

struct AdamUpdate {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  // AdamW
  int64_t step = 1;        // 1-based, for the bias correction
  double grad_scale = 1.0;
};
void adam_update_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                  const std::vector<Tensor>& exp_avg, const std::vector<Tensor>& exp_avg_sq,
                  const AdamUpdate& u);

// dst = decay*dst + (1-decay)*src for each pair (weight EMA).
void ema_update_(const std::vector<Tensor>& dst, const std::vector<Tensor>& src, double decay);
// sqrt(sum of squares) over all tensors.
double global_norm(const std::vector<Tensor>& tensors);

}  // namespace mtcki

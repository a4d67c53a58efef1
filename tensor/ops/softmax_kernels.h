// Kernels of softmax.h: checked plain inputs [rows, classes], allocated outputs. CPU kernels know
// f32 and f64, CUDA kernels bf16 too; a label outside 0..K-1 gives NaN there.
#pragma once

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

MTCKI_KERNEL(softmax, const Tensor& x, const Tensor& y, bool logarithm);
MTCKI_KERNEL(softmax_grad, const Tensor& gy, const Tensor& y, const Tensor& gx, bool logarithm);

MTCKI_KERNEL(cross_entropy, const Tensor& logits, const Tensor& labels, double smoothing,
             const Tensor& loss);
MTCKI_KERNEL(cross_entropy_grad, const Tensor& g, const Tensor& logits, const Tensor& labels,
             double smoothing, const Tensor& gx);

// loss [rows]; or, with g, the gradient of sum g*loss with respect to the named logits.
enum class Divergence { kl, js };
MTCKI_KERNEL(divergence, Divergence kind, const Tensor& p, const Tensor& q, double temperature,
             const Tensor& loss);
enum class Side { p, q };
MTCKI_KERNEL(divergence_grad, Divergence kind, Side side, const Tensor& g, const Tensor& p,
             const Tensor& q, double temperature, const Tensor& gx);

MTCKI_KERNEL(normalize, const Tensor& x, const Tensor& y, double eps);
MTCKI_KERNEL(normalize_grad, const Tensor& gy, const Tensor& x, const Tensor& gx, double eps);

}  // namespace mtcki

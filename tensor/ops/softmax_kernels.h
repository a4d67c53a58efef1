// Kernels of softmax.h: checked plain inputs [rows, classes], allocated outputs. CPU kernels know
// f32 and f64, CUDA kernels bf16 too; a label outside 0..K-1 gives NaN there.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

void softmax_cpu(const Tensor& x, const Tensor& y, bool logarithm);
void softmax_grad_cpu(const Tensor& gy, const Tensor& y, const Tensor& gx, bool logarithm);

void cross_entropy_cpu(const Tensor& logits, const Tensor& labels, double smoothing,
                       const Tensor& loss);
void cross_entropy_grad_cpu(const Tensor& g, const Tensor& logits, const Tensor& labels,
                            double smoothing, const Tensor& gx);

// loss [rows]; or, with g, the gradient of sum g*loss with respect to the named logits.
enum class Divergence { kl, js };
void divergence_cpu(Divergence kind, const Tensor& p, const Tensor& q, double temperature,
                    const Tensor& loss);
enum class Side { p, q };
void divergence_grad_cpu(Divergence kind, Side side, const Tensor& g, const Tensor& p,
                         const Tensor& q, double temperature, const Tensor& gx);

void normalize_cpu(const Tensor& x, const Tensor& y, double eps);
void normalize_grad_cpu(const Tensor& gy, const Tensor& x, const Tensor& gx, double eps);

void softmax_cuda(const Tensor& x, const Tensor& y, bool logarithm);
void softmax_grad_cuda(const Tensor& gy, const Tensor& y, const Tensor& gx, bool logarithm);
void cross_entropy_cuda(const Tensor& logits, const Tensor& labels, double smoothing,
                        const Tensor& loss);
void cross_entropy_grad_cuda(const Tensor& g, const Tensor& logits, const Tensor& labels,
                             double smoothing, const Tensor& gx);
void divergence_cuda(Divergence kind, const Tensor& p, const Tensor& q, double temperature,
                     const Tensor& loss);
void divergence_grad_cuda(Divergence kind, Side side, const Tensor& g, const Tensor& p,
                          const Tensor& q, double temperature, const Tensor& gx);
void normalize_cuda(const Tensor& x, const Tensor& y, double eps);
void normalize_grad_cuda(const Tensor& gy, const Tensor& x, const Tensor& gx, double eps);

}  // namespace mtcki

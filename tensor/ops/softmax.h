// Softmax over the last dimension, and the row losses that are built on it. Logits [N,K].
// Row arithmetic is in f64 internally for f64 and f32 for f32, always with the row maximum removed.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

Tensor softmax(const Tensor& x);
Tensor softmax_grad(const Tensor& gy, const Tensor& y);
Tensor log_softmax(const Tensor& x);
Tensor log_softmax_grad(const Tensor& gy, const Tensor& y);

// Per-row cross entropy -log softmax(x)[label] -> [N]; label_smoothing e: (1-e)*CE + e*mean_k(-log p).
Tensor cross_entropy_rows(const Tensor& logits, const Tensor& labels, double label_smoothing = 0);
// d/dlogits of sum_i g[i]*CE_i: g [N].
Tensor cross_entropy_rows_grad(const Tensor& g, const Tensor& logits, const Tensor& labels,
                               double label_smoothing = 0);

// Per-row KL( softmax(p/T) || softmax(q/T) ) -> [N]; p, q logits. No factor T^2.
Tensor kl_rows(const Tensor& p_logits, const Tensor& q_logits, double temperature = 1.0);
// d/dq = g/T (Q - P);  d/dp = g/T * P*(log P - log Q - KL).
Tensor kl_rows_grad_p(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits, double temperature);
Tensor kl_rows_grad_q(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits, double temperature);

// Per-row Jensen-Shannon divergence of softmax(p/T), softmax(q/T) -> [N]; 1e-8 inside logs, no clamp.
//   JS = 1/2 KL(P||M) + 1/2 KL(Q||M), M = (P+Q)/2.
Tensor js_rows(const Tensor& p_logits, const Tensor& q_logits, double temperature);
// d/dp = g/(2T) * P*(log P - log M - KL(P||M)); d/dq is the same call with p and q exchanged.
Tensor js_rows_grad_p(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits, double temperature);

// x / max(||x||_2, eps) over the last dimension (PyTorch's normalize).
Tensor normalize(const Tensor& x, double eps = 1e-12);
Tensor normalize_grad(const Tensor& gy, const Tensor& x, double eps = 1e-12);

}  // namespace mtcki

// Matrix products. f32 (oneDNN or built-in blocked kernel), f64 (built-in), bf16 (through f32).
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

// op(a) op(b), ranks 2; trans swaps rows and columns first. [M,K] x [K,N] -> [M,N].
// Leading dimensions of a rank-3 pair are a batch: [B,M,K] x [B,K,N].
Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a = false, bool trans_b = false);
// y = x w^T + bias.  x [N,in], w [out,in], bias [out] or undefined -> [N,out].
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias);
Tensor linear_grad_input(const Tensor& gy, const Tensor& w);         // gy w
Tensor linear_grad_weight(const Tensor& gy, const Tensor& x);        // gy^T x
Tensor linear_grad_bias(const Tensor& gy);                           // column sums

}  // namespace mtcki

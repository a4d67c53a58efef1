// Matrix products. CPU: f32 (oneDNN or built-in blocked kernel), f64 (built-in), bf16 (oneDNN where
// bf16_kernels() of conv.h, else through f32). CUDA: f32, f64 and bf16 by cublasLt. bf16 sums in f32.
#pragma once

#include <optional>

#include "tensor/math_mode.h"
#include "tensor/tensor.h"

namespace mtcki {

// op(a) op(b), ranks 2; trans swaps rows and columns first. [M,K] x [K,N] -> [M,N].
// Leading dimensions of a rank-3 pair are a batch: [B,M,K] x [B,K,N].
Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a = false, bool trans_b = false,
              Math math = Math::strict);
// y = x w^T + bias.  x [N,in], w [out,in], bias [out] or undefined -> [N,out]. Beside a bf16 x, w
// and bias may be f32. `constant_weight`: see Conv2dOptions.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, Math math = Math::strict,
              bool constant_weight = false);
Tensor linear_grad_input(const Tensor& gy, const Tensor& w, Math math = Math::strict,
                         bool constant_weight = false);  // gy w
// gy^T x and the column sums of gy, in gy's dtype, or in f32 where gy is bf16.
Tensor linear_grad_weight(const Tensor& gy, const Tensor& x, Math math = Math::strict,
                          std::optional<DType> dtype = {});
Tensor linear_grad_bias(const Tensor& gy, std::optional<DType> dtype = {});

}  // namespace mtcki

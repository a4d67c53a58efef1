// Elementwise ops. f32, f64, bf16 (computed in f32). The result has a's layout; a second operand of
// another layout is converted. Binary ops broadcast as NumPy does (a broadcast rank-4 operand with
// one value per channel, [C,1,1] or [1,C,1,1], keeps the fast per-channel loop in every layout).
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor add(const Tensor& a, double s);
Tensor mul(const Tensor& a, double s);

Tensor neg(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sign(const Tensor& x);
Tensor clamp(const Tensor& x, double low, double high);

Tensor relu(const Tensor& x);
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
Tensor sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor erf(const Tensor& x);  // 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x
// Gradients with respect to x. relu and leaky_relu take the output y (for a slope > 0 its sign is
// x's sign), sigmoid and tanh too: gy*y*(1-y), gy*(1-y^2). So does clamp, whose gradient at the
// limits is 0, as that of PyTorch's hardtanh and relu6.
Tensor relu_grad(const Tensor& gy, const Tensor& y);
Tensor leaky_relu_grad(const Tensor& gy, const Tensor& y, double negative_slope = 0.01);
Tensor clamp_grad(const Tensor& gy, const Tensor& y, double low, double high);
Tensor sigmoid_grad(const Tensor& gy, const Tensor& y);
Tensor tanh_grad(const Tensor& gy, const Tensor& y);

// Comparisons -> bool tensor, same-shape or broadcast.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
// condition ? a : b, same shapes.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
// True when no element is NaN or infinite. Reads the tensor once.
bool all_finite(const Tensor& x);
// True when shapes, dtypes and all elements (bit for bit) agree.
bool identical(const Tensor& a, const Tensor& b);
// |a-b| <= atol + rtol*|b| everywhere.
bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol);

// In place on the first operand; shapes equal. dst += alpha*src;  dst *= s;
void add_(const Tensor& dst, const Tensor& src, double alpha = 1.0);
void mul_(const Tensor& dst, double s);

}  // namespace mtcki

// In-place initialisers with PyTorch's names and definitions. A parameter keeps its storage, so
// that optimisers and other handles see the new values.
#pragma once

#include "autograd/variable.h"
#include "tensor/rng.h"

namespace mtcki::nn {

void uniform_(Variable& p, double low, double high, const Rng& rng);
void normal_(Variable& p, double mean, double std, const Rng& rng);
void constant_(Variable& p, double value);
// fan_in of [out, in, ...]: in * receptive field; fan_out: out * receptive field.
int64_t fan_in(const Shape& weight);
int64_t fan_out(const Shape& weight);
// U(-b, b), b = sqrt(6 / ((1 + a^2) fan_in)); a = sqrt 5 gives b = 1/sqrt(fan_in).
void kaiming_uniform_(Variable& p, double a, const Rng& rng);
void kaiming_normal_fan_in_(Variable& p, const Rng& rng);   // N(0, sqrt(2/fan_in))
void kaiming_normal_fan_out_(Variable& p, const Rng& rng);  // N(0, sqrt(2/fan_out))
// A random matrix whose rows are orthogonal and of length gain; no more rows than columns.
void orthogonal_(Variable& p, double gain, const Rng& rng);

}  // namespace mtcki::nn

// In-place initialisers with PyTorch's names and definitions.
#pragma once

#include "autograd/variable.h"
#include "tensor/rng.h"

namespace mtcki::nn {

void uniform_(Variable& p, double low, double high, const Rng& rng);
void normal_(Variable& p, double mean, double std, const Rng& rng);
void constant_(Variable& p, double value);
// fan_in of [out, in, ...]: in * receptive field; fan_out: out * receptive field.
void kaiming_uniform_(Variable& p, double a, const Rng& rng);          // fan_in, leaky_relu gain
void kaiming_normal_fan_out_(Variable& p, const Rng& rng);             // std sqrt(2/fan_out)

}  // namespace mtcki::nn

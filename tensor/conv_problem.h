// Internal: one convolution in numbers, as the ops, the kernels of each device and cuDNN see it.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/error.h"

namespace mtcki {

// Sizes of one convolution y = conv2d(x, w): x [n,c,h,w], w [k,c/groups,r,s], y [n,k,p,q].
struct ConvProblem {
  int64_t n = 0, c = 0, h = 0, w = 0, k = 0, r = 0, s = 0, p = 0, q = 0;
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dil_h = 1, dil_w = 1, groups = 1;

  double flops() const {  // 2 MAC, taps that fall on padding included
    return 2.0 * static_cast<double>(n * k * p * q) * static_cast<double>(c / groups * r * s);
  }
  int64_t x_size() const { return n * c * h * w; }
  int64_t w_size() const { return k * (c / groups) * r * s; }
  int64_t y_size() const { return n * k * p * q; }
};

// "cudnn 67 n128 64->64 32x32 k3x3 s1 p1": a kernel and what it computes.
inline std::string shape_note(const ConvProblem& d, const std::string& kernel) {
  return str(kernel, " n", d.n, " ", d.c, "->", d.k, " ", d.h, "x", d.w, " k", d.r, "x", d.s, " s",
             d.stride_h, " p", d.pad_h, d.dil_h > 1 ? str(" d", d.dil_h) : std::string(),
             d.groups > 1 ? str(" g", d.groups) : std::string());
}

enum class ConvPass { forward, grad_input, grad_weight };

}  // namespace mtcki

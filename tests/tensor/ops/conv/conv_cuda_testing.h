// What the tests of our own CUDA convolutions share: problems, and a check of forward and input
// gradient against f64 loops on the CPU with the same rounded operands.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/kernels.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/cuda_testing_products.h"

namespace mtcki::testing {

struct ConvCase {
  int64_t n, c, k, size, kernel, stride;
  int64_t width() const { return size == 7 ? 9 : size; }  // some are not square
  Conv2dOptions options() const { return Conv2dOptions(stride, kernel / 2); }
  ConvProblem problem() const {
    ConvProblem d;
    d.n = n, d.c = c, d.h = size, d.w = width(), d.k = k, d.r = d.s = kernel;
    d.stride_h = d.stride_w = stride, d.pad_h = d.pad_w = kernel / 2;
    d.p = (d.h + 2 * d.pad_h - d.r) / stride + 1, d.q = (d.w + 2 * d.pad_w - d.s) / stride + 1;
    return d;
  }
  std::string text() const { return shape_note(problem(), ""); }
};

struct WholeKernels {
  bool (*supports_forward)(const ConvProblem&);
  bool (*supports_grad_input)(const ConvProblem&);
  bool (*preferred)(const ConvProblem&);
  void (*forward)(const ConvProblem&, const Tensor& x, const Tensor& w, const Tensor& residual,
                  const Tensor& y);
  void (*grad_input)(const ConvProblem&, const Tensor& gy, const Tensor& w, const Tensor& gx,
                     bool add);
};

// Those of both that the kernels support; each by itself and added to something; twice.
inline void check_whole(const ConvCase& c, const WholeKernels& kernels) {
  const ConvProblem d = c.problem();
  const bool forward = kernels.supports_forward(d), backward = kernels.supports_grad_input(d);
  ASSERT_TRUE(forward || backward) << c.text();
  const bool chosen = kernels.preferred(d) && cuda::is_emulated();  // else cuDNN may be taken
  const Tensor x = sample({d.n, d.c, d.h, d.w}, 1, DType::bf16);
  const Tensor w = sample({d.k, d.c, 3, 3}, 2, DType::bf16);
  const Tensor gy = sample({d.n, d.k, d.p, d.q}, 3, DType::bf16);
  const auto f64 = [](const Tensor& t) { return t.to(DType::f64); };
  const auto there = [](const Tensor& t) { return t.to(kGpu).to(Layout::channels_last); };
  const Tensor ohwi = there(w);
  // run(out, other): with other added, if that is defined.
  const auto check = [&](const Tensor& want, int64_t seed, const auto& run) {
    const auto filled = [&] {
      return there(Tensor::full(want.shape(), -99, DType::f32)).to(DType::bf16);
    };
    const Tensor out = filled(), again = filled(), other = sample(want.shape(), seed, DType::bf16);
    run(out, Tensor());
    run(again, Tensor());
    EXPECT_TRUE(close(out, want, 4e-3)) << c.text();
    EXPECT_TRUE(identical(out, again)) << c.text();
    const Tensor sum = run(filled(), there(other)), sum_again = run(filled(), there(other));
    EXPECT_TRUE(close(sum, add(want, f64(other)), 8e-3)) << c.text();
    EXPECT_TRUE(identical(sum, sum_again)) << c.text();
    return out;
  };
  if (forward) {
    const Tensor y = check(conv2d(f64(x), f64(w), {}, c.options()), 4,
                           [&](const Tensor& out, const Tensor& other) {
                             kernels.forward(d, there(x), ohwi, other, out);
                             return out;
                           });
    if (chosen) {
      EXPECT_TRUE(identical(y, conv2d(x.to(kGpu), w.to(kGpu), {}, c.options()))) << c.text();
    }
  }
  if (backward) {
    const Tensor gx = check(conv2d_grad_input(f64(gy), f64(w), x.shape(), c.options()), 5,
                            [&](const Tensor& out, const Tensor& other) {
                              const Tensor& into =
                                  other.defined() ? other : out;  // adds to what it holds
                              kernels.grad_input(d, there(gy), ohwi, into, other.defined());
                              return into;
                            });
    if (chosen) {
      EXPECT_TRUE(identical(gx, conv2d_grad_input(gy.to(kGpu), w.to(kGpu), x.shape(), c.options())))
          << c.text();
    }
  }
}

}  // namespace mtcki::testing

// Matrix products and the linear layer on the GPU: every dtype, transposition and rounding mode
// against f64 on the CPU, repetition, captured steps.
#include <gmock/gmock.h>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/weight_copies.h"
#include "tests/cuda_testing.h"
#include "tests/cuda_testing_products.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::close;
using testing::kGpu;
using testing::kPrecisions;
using testing::Precision;
using testing::sample;

class MatmulCuda : public testing::CudaTest {};

TEST_F(MatmulCuda, EqualsF64) {
  struct Size {
    int64_t batch, m, n, k;
  };
  for (const Size& s :
       {Size{1, 1, 1, 1}, Size{1, 7, 17, 9}, Size{1, 64, 48, 33}, Size{3, 9, 20, 11},
        Size{1, 1, 100, 64}, Size{1, 57, 1, 64}, Size{2, 0, 3, 4}, Size{1, 3, 4, 0}})
    for (int trans = 0; trans < 4; ++trans) {
      const bool ta = trans & 1, tb = trans & 2;
      Shape as = ta ? Shape{s.k, s.m} : Shape{s.m, s.k},
            bs = tb ? Shape{s.n, s.k} : Shape{s.k, s.n};
      if (s.batch > 1) {
        as = Shape{s.batch, as[0], as[1]};
        bs = Shape{s.batch, bs[0], bs[1]};
      }
      for (const Precision& p : kPrecisions) {
        const Tensor a = sample(as, 1, p.dtype), b = sample(bs, 2, p.dtype);
        const Tensor want = matmul(a.to(DType::f64), b.to(DType::f64), ta, tb);
        const Tensor got = matmul(a.to(kGpu), b.to(kGpu), ta, tb, p.math);
        EXPECT_EQ(got.dtype(), p.dtype);
        EXPECT_TRUE(close(got, want, p.tolerance))
            << s.batch << " " << s.m << " " << s.n << " " << s.k << " trans " << trans;
        EXPECT_TRUE(identical(got, matmul(a.to(kGpu), b.to(kGpu), ta, tb, p.math)));
      }
    }
}

TEST_F(MatmulCuda, LinearAndItsGradients) {
  for (const auto& [m, in, out] : {std::array<int64_t, 3>{9, 20, 7}, {600, 64, 10}, {5, 512, 100}})
    for (const Precision& p : kPrecisions) {
      const auto s = [&](const Shape& shape, uint64_t seed) {
        return sample(shape, seed, p.dtype);
      };
      const Tensor x = s({m, in}, 3), w = s({out, in}, 4), bias = s({out}, 5), gy = s({m, out}, 6);
      const auto f = [](const Tensor& t) { return t.to(DType::f64); };
      const Tensor gx = x.to(kGpu), gw = w.to(kGpu), gb = bias.to(kGpu), gg = gy.to(kGpu);
      EXPECT_TRUE(close(linear(gx, gw, gb, p.math), linear(f(x), f(w), f(bias)), p.tolerance));
      EXPECT_TRUE(close(linear(gx, gw, {}, p.math), linear(f(x), f(w), {}), p.tolerance));
      EXPECT_TRUE(
          close(linear_grad_input(gg, gw, p.math), linear_grad_input(f(gy), f(w)), p.tolerance));
      EXPECT_TRUE(
          close(linear_grad_weight(gg, gx, p.math), linear_grad_weight(f(gy), f(x)), p.tolerance));
      EXPECT_TRUE(close(linear_grad_bias(gg), linear_grad_bias(f(gy)), p.tolerance));
      EXPECT_TRUE(identical(linear_grad_bias(gg), linear_grad_bias(gg)));
    }
}

TEST_F(MatmulCuda, F32ParametersBesideBf16Activations) {
  const Tensor x = sample({9, 24}, 7, DType::bf16), gy = sample({9, 10}, 8, DType::bf16);
  const Tensor w = sample({10, 24}, 9, DType::f32), bias = sample({10}, 10, DType::f32);
  const auto f = [](const Tensor& t) { return t.to(DType::f64); };
  const Tensor gx = x.to(kGpu), gw = w.to(kGpu), gg = gy.to(kGpu);
  const Tensor y = linear(gx, gw, bias.to(kGpu));
  EXPECT_EQ(y.dtype(), DType::bf16);
  EXPECT_TRUE(close(y, linear(f(x), f(w.to(DType::bf16)), f(bias)), 5e-3));
  EXPECT_TRUE(close(linear(x, w, bias), linear(f(x), f(w), f(bias)), 2e-2));  // the CPU too
  const Tensor grad = linear_grad_weight(gg, gx, Math::strict, DType::f32);
  EXPECT_EQ(grad.dtype(), DType::f32);
  EXPECT_TRUE(close(grad, linear_grad_weight(f(gy), f(x)), 1e-5));
  EXPECT_TRUE(close(linear_grad_bias(gg, DType::f32), linear_grad_bias(f(gy)), 1e-5));
  EXPECT_TRUE(close(linear_grad_input(gg, gw), linear_grad_input(f(gy), f(w)), 2e-2));
  // The rounded copy follows the weight, and goes with it.
  Tensor moved = w.to(kGpu);
  const size_t before = weight_copies();
  linear(gx, moved, {});
  EXPECT_EQ(weight_copies(), before + 1);
  mul_(moved, 2.0);
  EXPECT_TRUE(close(linear(gx, moved, {}), linear(f(x), f(mul(w, 2.0)), {}), 2e-2));
  EXPECT_EQ(weight_copies(), before + 1);
  moved = Tensor();
  EXPECT_EQ(weight_copies(), before);
}

TEST_F(MatmulCuda, CapturedProductsRepeat) {
  const Tensor x = sample({6, 8}, 11, DType::bf16).to(kGpu);
  const Tensor w = sample({4, 8}, 12, DType::f32).to(kGpu),
               bias = sample({4}, 13, DType::f32).to(kGpu);
  Tensor out = Tensor::zeros({6, 4}, DType::bf16, kGpu);
  const auto step = [&] { out.copy_(linear(x, w, bias)); };
  step();  // warms up
  cuda::Graph graph;
  graph.begin();
  step();
  graph.end();
  for (const double scale : {3.0, 0.5}) {
    mul_(w, scale);  // between the launches, so the copy has to be made by each
    graph.launch();
    EXPECT_TRUE(identical(out, linear(x, w, bias))) << scale;
  }
}

}  // namespace
}  // namespace mtcki

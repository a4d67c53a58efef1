// Row losses on the GPU: against the CPU in the same dtype, and against f64.
#include <gmock/gmock.h>

#include "tensor/ops/contrast_kernels.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::near;
using testing::sample;

class SoftmaxCuda : public testing::CudaTest {};
const std::vector<DType> kFloats{DType::f32, DType::f64, DType::bf16};
// One class; fewer and more than a warp; a warp's longest row and a block's shortest; a block row.
const std::vector<Shape> kShapes{{3, 1},    {1, 10},   {5, 31},   {9, 32}, {2, 33},
                                 {3, 1024}, {2, 1025}, {2, 5000}, {0, 7},  {300, 3}};

// Relative to the largest value; bf16 against f64 of the same rounded inputs.
double tolerance(DType dtype) {
  return dtype == DType::bf16 ? 1e-2 : dtype == DType::f32 ? 5e-6 : 1e-12;
}
Tensor on_gpu(const Tensor& x, DType dtype) { return x.to(dtype).to(kGpu); }
Tensor rounded(const Tensor& x, DType dtype) { return x.to(dtype).to(DType::f64); }
double largest(const Tensor& x) {
  double m = 1e-30;
  for (const double v : x.to_vector<double>()) m = std::max(m, std::fabs(v));
  return m;
}
::testing::AssertionResult close(const Tensor& got, const Tensor& want, DType dtype,
                                 double factor = 1) {
  if (got.device() != kGpu || got.dtype() != dtype)
    return ::testing::AssertionFailure() << "it is " << got.describe();
  if (want.numel() == 0) return near(got, want, 0);
  const double scale = largest(want);
  return near(mul(got.to(Device::cpu()).to(DType::f64), 1 / scale), mul(want, 1 / scale),
              factor * tolerance(dtype));
}
Tensor labels_for(const Shape& shape) {
  std::vector<int64_t> v;
  for (int64_t i = 0; i < shape[0]; ++i) v.push_back((i * 7 + 5) % shape[1]);
  return Tensor::from(v, {shape[0]});
}

TEST_F(SoftmaxCuda, SoftmaxAndItsGradient) {
  for (const Shape& shape : kShapes)
    for (const DType dtype : kFloats) {
      const Tensor x = mul(sample(shape, 1), 4.0), g = sample(shape, 2);
      const Tensor gx = on_gpu(x, dtype), gg = on_gpu(g, dtype);
      const Tensor rx = rounded(x, dtype), rg = rounded(g, dtype);
      EXPECT_TRUE(close(softmax(gx), softmax(rx), dtype)) << shape << name_of(dtype);
      EXPECT_TRUE(close(log_softmax(gx), log_softmax(rx), dtype)) << shape;
      const Tensor y = rounded(softmax(rx), dtype), l = rounded(log_softmax(rx), dtype);
      EXPECT_TRUE(close(softmax_grad(gg, on_gpu(y, dtype)), softmax_grad(rg, y), dtype));
      EXPECT_TRUE(close(log_softmax_grad(gg, on_gpu(l, dtype)), log_softmax_grad(rg, l), dtype));
    }
}

TEST_F(SoftmaxCuda, HugeLogitsStayFinite) {
  const Tensor x = Tensor::from<float>({1e4f, -1e4f, 1e4f, 3e38f, -3e38f, 0}, {2, 3});
  EXPECT_TRUE(near(softmax(x.to(kGpu)), softmax(x), 1e-6));
  EXPECT_TRUE(near(log_softmax(x.to(kGpu)).slice(0, 1), log_softmax(x).slice(0, 1), 1e-6));
  const Tensor nan = Tensor::from<float>({0, NAN, 1, 0, 0, 0}, {2, 3});
  const auto y = softmax(nan.to(kGpu)).to_vector<double>();
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(y[i]));
  EXPECT_NEAR(y[4], 1.0 / 3, 1e-7);
}

TEST_F(SoftmaxCuda, CrossEntropyWithSmoothing) {
  for (const Shape& shape : kShapes)
    for (const DType dtype : kFloats)
      for (const double e : {0.0, 0.1, 1.0}) {
        const Tensor x = mul(sample(shape, 1), 4.0), g = sample({shape[0]}, 2);
        const Tensor labels = labels_for(shape);
        const Tensor rx = rounded(x, dtype), rg = rounded(g, dtype);
        EXPECT_TRUE(close(cross_entropy_rows(on_gpu(x, dtype), labels.to(kGpu), e),
                          cross_entropy_rows(rx, labels, e), dtype, 2))
            << shape << e << name_of(dtype);
        if (shape[1] == 1) continue;  // the gradient is zero but for rounding
        EXPECT_TRUE(
            close(cross_entropy_rows_grad(on_gpu(g, dtype), on_gpu(x, dtype), labels.to(kGpu), e),
                  cross_entropy_rows_grad(rg, rx, labels, e), dtype, 2))
            << shape << e;
      }
}

TEST_F(SoftmaxCuda, BadLabelsGiveNanInTheirRowOnly) {
  const Tensor x = sample({3, 5}, 1, DType::f32).to(kGpu);
  const Tensor labels = Tensor::from<int64_t>({5, 2, -7}, {3}).to(kGpu);
  const auto loss = cross_entropy_rows(x, labels).to_vector<double>();
  EXPECT_TRUE(std::isnan(loss[0]) && !std::isnan(loss[1]) && std::isnan(loss[2]));
  const auto gx = cross_entropy_rows_grad(Tensor::full({3}, 1, DType::f32, kGpu), x, labels)
                      .to_vector<double>();
  for (size_t i = 0; i < 15; ++i) EXPECT_EQ(std::isnan(gx[i]), i / 5 != 1);
  EXPECT_THAT(error_of<DeviceError>([&] { cross_entropy_rows(x, labels.to(Device::cpu())); }),
              HasSubstr("different devices"));
}

TEST_F(SoftmaxCuda, DivergencesAndTheirGradients) {
  for (const Shape& shape : kShapes)
    for (const DType dtype : kFloats)
      for (const double t : {1.0, 4.0}) {
        const Tensor p = mul(sample(shape, 1), 2.0), q = mul(sample(shape, 2), 2.0);
        const Tensor g = sample({shape[0]}, 3);
        const Tensor gp = on_gpu(p, dtype), gq = on_gpu(q, dtype), gg = on_gpu(g, dtype);
        const Tensor rp = rounded(p, dtype), rq = rounded(q, dtype), rg = rounded(g, dtype);
        if (shape[1] == 1) {  // zero but for rounding
          EXPECT_EQ(largest(kl_rows(gp, gq, t)), 1e-30);
          EXPECT_EQ(largest(js_rows_grad_p(gg, gp, gq, t)), 1e-30);
          continue;
        }
        EXPECT_TRUE(close(kl_rows(gp, gq, t), kl_rows(rp, rq, t), dtype, 2)) << shape;
        EXPECT_TRUE(close(js_rows(gp, gq, t), js_rows(rp, rq, t), dtype, 2)) << shape;
        EXPECT_TRUE(close(kl_rows_grad_p(gg, gp, gq, t), kl_rows_grad_p(rg, rp, rq, t), dtype, 4));
        EXPECT_TRUE(close(kl_rows_grad_q(gg, gp, gq, t), kl_rows_grad_q(rg, rp, rq, t), dtype, 4));
        EXPECT_TRUE(close(js_rows_grad_p(gg, gp, gq, t), js_rows_grad_p(rg, rp, rq, t), dtype, 4));
      }
}

TEST_F(SoftmaxCuda, ProbabilitiesOfZeroCountNothing) {
  const Tensor p = Tensor::from<float>({0, -1000, 3, 0}, {2, 2});
  const Tensor q = Tensor::from<float>({0, 1000, -3, 0}, {2, 2});
  const Tensor g = Tensor::full({2}, 1);
  EXPECT_TRUE(near(kl_rows(p.to(kGpu), q.to(kGpu)), kl_rows(p, q), 1e-6));
  EXPECT_TRUE(near(kl_rows_grad_p(g.to(kGpu), p.to(kGpu), q.to(kGpu), 1),
                   kl_rows_grad_p(g, p, q, 1), 1e-6));
  EXPECT_TRUE(near(js_rows(p.to(kGpu), q.to(kGpu), 1), js_rows(p, q, 1), 1e-6));
}

TEST_F(SoftmaxCuda, NormalizesRows) {
  for (const Shape& shape : kShapes)
    for (const DType dtype : kFloats)
      for (const double eps : {1e-12, 100.0}) {
        const Tensor x = sample(shape, 1), g = sample(shape, 2);
        const Tensor rx = rounded(x, dtype), rg = rounded(g, dtype);
        EXPECT_TRUE(close(normalize(on_gpu(x, dtype), eps), normalize(rx, eps), dtype)) << shape;
        if (shape[1] == 1 && eps < 1) continue;  // the gradient of x/|x| is zero but for rounding
        EXPECT_TRUE(close(normalize_grad(on_gpu(g, dtype), on_gpu(x, dtype), eps),
                          normalize_grad(rg, rx, eps), dtype, 2))
            << shape << eps;
      }
  EXPECT_EQ(largest(normalize(Tensor::zeros({2, 5}, DType::f32, kGpu))), 1e-30);
}

TEST_F(SoftmaxCuda, ContrastChunks) {
  for (const Shape& shape : kShapes) {
    const int64_t n = shape[0];
    if (n == 0 || shape[1] < n + 2) continue;
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor s = mul(sample(shape, 1, dtype), 0.5);
      const Tensor g = sample({n}, 2, dtype);
      // The chunk begins at row 2 of all rows.
      const auto pad = [&](const Tensor& t) {
        const Tensor out = Tensor::zeros({n + 2}, t.dtype());
        out.slice(2, n + 2).copy_(t);
        return out;
      };
      const Tensor all_g = pad(g);
      Tensor rows = Tensor::zeros({n + 2}, dtype), lse = Tensor::zeros({n + 2}, dtype);
      const Tensor rows_there = rows.to(kGpu), lse_there = lse.to(kGpu);
      info_nce_chunk_cpu(s, 0.2, 2, rows, lse);
      info_nce_chunk_cuda(s.to(kGpu), 0.2, 2, rows_there, lse_there);
      const double tol = dtype == DType::f32 ? 4e-6 : 1e-13;
      EXPECT_TRUE(near(rows_there, rows, tol)) << shape;
      EXPECT_TRUE(near(lse_there, lse, tol)) << shape;
      const Tensor here = s.clone(), there = s.to(kGpu);
      info_nce_chunk_grad_cpu(here, all_g, lse, 0.2, 2);
      info_nce_chunk_grad_cuda(there, all_g.to(kGpu), lse.to(kGpu), 0.2, 2);
      EXPECT_TRUE(near(there, here, 4 * tol)) << shape;
    }
  }
}

TEST_F(SoftmaxCuda, RowsRepeatBitForBit) {
  const Tensor x = sample({7, 2500}, 1, DType::f32).to(kGpu), z = sample({7, 2500}, 2, DType::f32);
  EXPECT_TRUE(identical(softmax(x), softmax(x)));
  EXPECT_TRUE(identical(js_rows(x, z.to(kGpu), 3), js_rows(x, z.to(kGpu), 3)));
}

}  // namespace
}  // namespace mtcki

// Convolution on the GPU against f64 loops on the CPU: kernels, strides, paddings, dilations,
// groups, odd channel counts, layouts, dtypes; repetition; copies of weights; captured steps. On
// the emulated GPU this is im2col and a GEMM; on a real one it is cuDNN as well.
#include <gmock/gmock.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/weight_copies.h"
#include "tensor/profiler.h"
#include "tests/cuda_testing.h"
#include "tests/cuda_testing_products.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::close;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::kPrecisions;
using testing::Precision;
using testing::sample;

Tensor f64(const Tensor& t) { return t.defined() ? t.to(DType::f64) : t; }

struct Case {
  int64_t n, c, k, h, w, r, s;
  Conv2dOptions o;
};
std::vector<Case> cases() {
  std::vector<Case> all{
      {2, 3, 16, 8, 8, 3, 3, Conv2dOptions(1, 1)},  {2, 16, 16, 6, 6, 3, 3, Conv2dOptions(1, 1)},
      {2, 16, 32, 7, 7, 3, 3, Conv2dOptions(2, 1)}, {2, 16, 32, 8, 8, 1, 1, Conv2dOptions(2, 0)},
      {2, 16, 24, 5, 5, 1, 1, Conv2dOptions(1, 0)}, {3, 16, 3, 6, 6, 3, 3, Conv2dOptions(1, 1)},
      {1, 1, 5, 9, 9, 5, 5, Conv2dOptions(2, 2)},   {2, 5, 7, 6, 6, 3, 3, Conv2dOptions(1, 0)},
      {1, 8, 8, 7, 7, 4, 4, Conv2dOptions(2, 1)},   {1, 8, 8, 1, 1, 1, 1, Conv2dOptions(1, 0)},
  };
  Case odd{2, 8, 6, 5, 9, 3, 5, Conv2dOptions()};
  odd.o.stride = {2, 1};
  odd.o.padding = {0, 3};
  all.push_back(odd);
  Case dilated{2, 8, 8, 9, 9, 3, 3, Conv2dOptions(1, 2)};
  dilated.o.dilation = {2, 2};
  all.push_back(dilated);
  Case grouped{2, 8, 12, 6, 6, 3, 3, Conv2dOptions(1, 1)};
  grouped.o.groups = 4;
  all.push_back(grouped);
  Case depthwise{2, 6, 6, 6, 6, 1, 1, Conv2dOptions(1, 0)};
  depthwise.o.groups = 6;
  all.push_back(depthwise);
  return all;
}
std::string text(const Case& c) {
  return str("n", c.n, " ", c.c, "->", c.k, " ", c.h, "x", c.w, " kernel ", c.r, "x", c.s,
             " stride ", c.o.stride[0], " pad ", c.o.padding[0], " dilation ", c.o.dilation[0],
             " groups ", c.o.groups);
}

// Plans are kept where tests may write.
const std::string& plan_file() {
  static const std::string path = ::testing::TempDir() + "mtcki_conv_cuda_test_plans.json";
  return path;
}

class ConvCuda : public testing::CudaTest {
 protected:
  static void SetUpTestSuite() {
    std::remove(plan_file().c_str());
    setenv("MTCKI_PLAN_CACHE", plan_file().c_str(), 1);
  }
  void TearDown() override {
    math_settings().cuda_conv = CudaConv::automatic;
    math_settings().autotune = false;
  }
};
class Cudnn : public ConvCuda {
 protected:
  void SetUp() override {
    ConvCuda::SetUp();
    if (!IsSkipped() && cuda::is_emulated()) GTEST_SKIP() << "needs a real GPU: cuDNN";
  }
};

void check(const Case& c, const Precision& p, Layout layout) {
  Conv2dOptions o = c.o;
  o.math = p.math;
  const std::string where = text(c) + " " + name_of(p.dtype) + " " + name_of(layout) +
                            (p.math == Math::tf32 ? " tf32" : "");
  const Shape ws{c.k, c.c / o.groups, c.r, c.s};
  const Tensor x = sample({c.n, c.c, c.h, c.w}, 1, p.dtype), w = sample(ws, 2, p.dtype);
  const Tensor bias = sample({c.k}, 3, p.dtype);
  const Tensor gx = x.to(kGpu).to(layout), gw = w.to(kGpu), gb = bias.to(kGpu);
  const Tensor y = conv2d(gx, gw, gb, o);
  EXPECT_EQ(y.layout(), Layout::channels_last);
  EXPECT_EQ(y.dtype(), p.dtype);
  EXPECT_TRUE(close(y, conv2d(f64(x), f64(w), f64(bias), c.o), p.tolerance)) << where;
  EXPECT_TRUE(close(conv2d(gx, gw, {}, o), conv2d(f64(x), f64(w), {}, c.o), p.tolerance)) << where;
  const Tensor gy = sample(y.shape(), 4, p.dtype), ggy = gy.to(kGpu).to(layout);
  EXPECT_TRUE(close(conv2d_grad_input(ggy, gw, x.shape(), o),
                    conv2d_grad_input(f64(gy), f64(w), x.shape(), c.o), p.tolerance))
      << where;
  EXPECT_TRUE(close(conv2d_grad_weight(ggy, gx, ws, o),
                    conv2d_grad_weight(f64(gy), f64(x), ws, c.o), p.tolerance))
      << where;
  EXPECT_TRUE(close(conv2d_grad_bias(ggy), conv2d_grad_bias(f64(gy)), p.tolerance)) << where;
  // The same bits again.
  EXPECT_TRUE(identical(y, conv2d(gx, gw, gb, o))) << where;
  EXPECT_TRUE(identical(conv2d_grad_weight(ggy, gx, ws, o), conv2d_grad_weight(ggy, gx, ws, o)))
      << where;
  EXPECT_TRUE(
      identical(conv2d_grad_input(ggy, gw, x.shape(), o), conv2d_grad_input(ggy, gw, x.shape(), o)))
      << where;
}

TEST_F(ConvCuda, EqualsF64) {
  for (const CudaConv kernels : {CudaConv::automatic, CudaConv::im2col}) {
    if (kernels == CudaConv::im2col && cuda::is_emulated()) continue;  // the same there
    math_settings().cuda_conv = kernels;
    for (const Case& c : cases()) {
      for (const Precision& p : kPrecisions) check(c, p, Layout::channels_last);
      check(c, kPrecisions[1], Layout::plain);
    }
  }
}

TEST_F(ConvCuda, ManyRowsOfBiasGradient) {
  // More rows than one block of the first stage takes.
  const Tensor gy = sample({16, 35, 20, 20}, 5, DType::f32);
  for (const Layout layout : {Layout::plain, Layout::channels_last})
    EXPECT_TRUE(close(conv2d_grad_bias(gy.to(kGpu).to(layout)), conv2d_grad_bias(f64(gy)), 1e-5));
}

TEST_F(ConvCuda, TransposedConvolution) {
  for (const int64_t groups : {1, 2})
    for (const Precision& p : kPrecisions) {
      ConvTranspose2dOptions o(2, 1);
      o.output_padding = {1, 0};
      o.groups = groups;
      o.math = p.math;
      const Shape ws{6, 8 / groups, 3, 3};
      const Tensor x = sample({2, 6, 4, 5}, 6, p.dtype), w = sample(ws, 7, p.dtype);
      const Tensor bias = sample({8}, 8, p.dtype);
      const Tensor gx = x.to(kGpu), gw = w.to(kGpu);
      const Tensor y = conv_transpose2d(gx, gw, bias.to(kGpu), o);
      EXPECT_TRUE(close(y, conv_transpose2d(f64(x), f64(w), f64(bias), o), p.tolerance));
      const Tensor gy = sample(y.shape(), 9, p.dtype), ggy = gy.to(kGpu);
      EXPECT_TRUE(close(conv_transpose2d_grad_input(ggy, gw, o),
                        conv_transpose2d_grad_input(f64(gy), f64(w), o), p.tolerance));
      EXPECT_TRUE(close(conv_transpose2d_grad_weight(ggy, gx, ws, o),
                        conv_transpose2d_grad_weight(f64(gy), f64(x), ws, o), p.tolerance));
    }
}

// By cuDNN in the sum's own memory, when nobody else has it.
TEST_F(ConvCuda, InputGradientsAddToWhatIsThere) {
  const Shape shape{2, 16, 7, 7};
  for (const int64_t stride : {1, 2})
    for (const Precision& p : kPrecisions) {
      Conv2dOptions o(stride, 1);
      o.math = p.math;
      const int64_t size = stride == 1 ? 7 : 4;
      const Tensor w = sample({24, 16, 3, 3}, 31, p.dtype),
                   gy = sample({2, 24, size, size}, 32, p.dtype), sum = sample(shape, 33, p.dtype);
      const Tensor want = add(conv2d_grad_input(f64(gy), f64(w), shape, o), f64(sum));
      const Tensor there = sum.to(kGpu).to(Layout::channels_last), before = there.clone();
      const auto run = [&](Tensor what) {
        return conv2d_grad_input(gy.to(kGpu), w.to(kGpu), shape, o, std::move(what));
      };
      EXPECT_TRUE(close(run(there), want, p.tolerance)) << "stride " << stride;
      EXPECT_TRUE(identical(there, before)) << "somebody else holds it";
      EXPECT_TRUE(close(run(there.clone()), want, p.tolerance)) << "stride " << stride;
      EXPECT_TRUE(close(run(sum.to(kGpu)), want, p.tolerance)) << "plain";
    }
}

TEST_F(ConvCuda, EmptyBatch) {
  const Tensor x = Tensor::empty({0, 3, 8, 8}, DType::f32, kGpu),
               w = Tensor::zeros({4, 3, 3, 3}, DType::f32, kGpu);
  const Conv2dOptions o(1, 1);
  const Tensor y = conv2d(x, w, Tensor::zeros({4}, DType::f32, kGpu), o);
  EXPECT_EQ(y.shape(), (Shape{0, 4, 8, 8}));
  EXPECT_EQ(conv2d_grad_input(y, w, x.shape(), o).shape(), x.shape());
  EXPECT_TRUE(identical(conv2d_grad_weight(y, x, w.shape(), o), w));
  EXPECT_TRUE(identical(conv2d_grad_bias(y), Tensor::zeros({4})));
}

TEST_F(ConvCuda, F32WeightsBesideBf16Activations) {
  const Conv2dOptions o(1, 1);
  const Tensor x = sample({2, 3, 6, 6}, 10, DType::bf16), w = sample({8, 3, 3, 3}, 11, DType::f32);
  const Tensor bias = sample({8}, 12, DType::f32), gy = sample({2, 8, 6, 6}, 13, DType::bf16);
  const Tensor gx = x.to(kGpu), gw = w.to(kGpu), ggy = gy.to(kGpu);
  const Tensor y = conv2d(gx, gw, bias.to(kGpu), o);
  EXPECT_EQ(y.dtype(), DType::bf16);
  EXPECT_TRUE(close(y, conv2d(f64(x), f64(w), f64(bias), o), 2e-2));
  EXPECT_TRUE(close(conv2d(x, w, bias, o), conv2d(f64(x), f64(w), f64(bias), o), 2e-2));  // CPU
  EXPECT_TRUE(close(conv2d_grad_input(ggy, gw, x.shape(), o),
                    conv2d_grad_input(f64(gy), f64(w), x.shape(), o), 2e-2));
  const Tensor grad = conv2d_grad_weight(ggy, gx, w.shape(), o, DType::f32);
  EXPECT_EQ(grad.dtype(), DType::f32);
  EXPECT_TRUE(close(grad, conv2d_grad_weight(f64(gy), f64(x), w.shape(), o), 2e-2));
  EXPECT_TRUE(close(conv2d_grad_bias(ggy, DType::f32), conv2d_grad_bias(f64(gy)), 1e-5));
  EXPECT_THROW(conv2d_grad_bias(ggy, DType::f64), DTypeError);
  EXPECT_THROW(conv2d(x.to(DType::f64).to(kGpu), gw, {}, o), DTypeError);
}

TEST_F(ConvCuda, CopiesOfWeightsFollowThem) {
  const Conv2dOptions o(1, 1);
  const Tensor x = sample({2, 16, 6, 6}, 14, DType::f32), w = sample({8, 16, 3, 3}, 15, DType::f32);
  const Tensor gx = x.to(kGpu);
  Tensor gw = w.to(kGpu);
  const size_t before = weight_copies();
  EXPECT_TRUE(close(conv2d(gx, gw, {}, o), conv2d(f64(x), f64(w), {}, o), 1e-5));
  const size_t with = weight_copies();
  EXPECT_GT(with, before);
  mul_(gw, 3.0);
  EXPECT_TRUE(close(conv2d(gx, gw, {}, o), conv2d(f64(x), mul(f64(w), 3.0), {}, o), 1e-5));
  gw.slice(0, 4).fill_(0.25);
  Tensor changed = mul(w, 3.0);
  changed.slice(0, 4).fill_(0.25);
  EXPECT_TRUE(close(conv2d(gx, gw, {}, o), conv2d(f64(x), f64(changed), {}, o), 1e-5));
  EXPECT_EQ(weight_copies(), with);
  gw = Tensor();
  EXPECT_EQ(weight_copies(), before);
}

// A training step in miniature: forward, both gradients, an update of the weight.
TEST_F(ConvCuda, CapturedStepsConvertChangedWeights) {
  const Conv2dOptions o(1, 1);
  const Tensor x = sample({2, 8, 5, 5}, 16, DType::f32).to(kGpu);
  const auto run = [&](const Tensor& w, const Tensor& y) {
    const Tensor out = conv2d(x, w, {}, o);
    y.copy_(out);
    conv2d_grad_input(out, w, x.shape(), o);
    add_(w, conv2d_grad_weight(out, x, w.shape(), o), -1e-4);
  };
  const Tensor eager = sample({8, 8, 3, 3}, 17, DType::f32).to(kGpu);
  const Tensor y = Tensor::zeros({2, 8, 5, 5}, DType::f32, kGpu, Layout::channels_last);
  run(eager, y);
  Tensor captured = eager.clone();
  const Tensor replayed = Tensor::zeros_like(y);
  run(captured, replayed);  // memory and copies exist; the copies are out of date after each step
  captured.copy_(eager);
  cuda::Graph graph;
  graph.begin();
  run(captured, replayed);
  graph.end();
  for (int i = 0; i < 3; ++i) {
    run(eager, y);
    graph.launch();
    EXPECT_TRUE(identical(replayed, y)) << "step " << i;
    EXPECT_TRUE(identical(captured, eager)) << "step " << i;
    EXPECT_TRUE(identical(conv2d(x, captured, {}, o), conv2d(x, eager, {}, o))) << "between steps";
  }
}

TEST_F(ConvCuda, CapturedStepsReadConstantWeights) {
  Conv2dOptions o(1, 1);
  const Tensor x = sample({1, 8, 5, 5}, 18, DType::f32).to(kGpu);
  const Tensor w = sample({8, 8, 3, 3}, 19, DType::f32).to(kGpu);
  Tensor y = Tensor::zeros({1, 8, 5, 5}, DType::f32, kGpu, Layout::channels_last);
  const auto nodes = [&](bool constant) {
    o.constant_weight = constant;
    y.copy_(conv2d(x, w, {}, o));
    const Tensor want = y.clone();
    y.copy_(conv2d(x, w, {}, o));  // again, for a block beside that of `want`
    cuda::Graph graph;
    graph.begin();
    y.copy_(conv2d(x, w, {}, o));
    graph.end();
    y.zero_();
    graph.launch();
    EXPECT_TRUE(identical(y, want));
    return graph.nodes();
  };
  EXPECT_EQ(nodes(false), nodes(true) + 1);  // the conversion
}

TEST_F(Cudnn, RunsEveryUngroupedCase) {
  math_settings().cuda_conv = CudaConv::cudnn;  // no way out to im2col
  for (const Case& c : cases())
    for (const Precision& p : kPrecisions)
      if (c.o.groups == 1 && p.dtype != DType::f64) check(c, p, Layout::channels_last);
}

TEST_F(Cudnn, AutotuneKeepsItsChoice) {
  math_settings().cuda_conv = CudaConv::cudnn;
  math_settings().autotune = true;
  const Case c{2, 24, 40, 10, 10, 3, 3, Conv2dOptions(1, 1)};
  for (const Precision& p : kPrecisions)
    if (p.dtype != DType::f64) check(c, p, Layout::channels_last);
  std::ifstream in(plan_file());
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("c24 h10 w10 k40"));
}

TEST_F(Cudnn, NoPlanIsLookedForInACapture) {
  math_settings().cuda_conv = CudaConv::cudnn;
  const Tensor x = sample({3, 16, 11, 11}, 22, DType::f32).to(kGpu);
  const Tensor w = sample({16, 16, 3, 3}, 23, DType::f32).to(kGpu);
  const Tensor in = x.to(Layout::channels_last);
  {  // memory that the capture can have: result and copy of the weight
    const Tensor block = Tensor::empty({3, 16, 11, 11}, DType::f32, kGpu);
    const Tensor other = Tensor::empty({16, 9, 16}, DType::f32, kGpu);
  }
  cuda::Graph graph;
  graph.begin();
  EXPECT_THAT(testing::error_of<CaptureError>([&] { conv2d(in, w, {}, Conv2dOptions(1, 1)); }),
              HasSubstr("warm up"));
  graph.abandon();
}

TEST_F(ConvCuda, ProfileNamesTheKernel) {
  math_settings().cuda_conv = CudaConv::im2col;
  const Tensor x = sample({1, 3, 5, 5}, 20, DType::f32).to(kGpu);
  profiler::start();
  conv2d(x, sample({4, 3, 3, 3}, 21, DType::f32).to(kGpu), {}, Conv2dOptions(1, 1));
  profiler::stop();
  std::string note;
  for (const auto& e : profiler::events())
    if (e.op == "conv2d") note = e.note;
  EXPECT_THAT(note, HasSubstr("im2col n1 3->4 5x5 k3x3 s1 p1"));
}

}  // namespace
}  // namespace mtcki

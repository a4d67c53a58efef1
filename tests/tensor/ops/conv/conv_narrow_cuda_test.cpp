// bf16 convolutions with few channels by our own tensor core kernels, against f64 loops on the CPU
// with the same rounded operands.
#include <gmock/gmock.h>

#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/narrow_cuda.h"
#include "tensor/profiler.h"
#include "tests/tensor/ops/conv/conv_cuda_testing.h"

namespace mtcki {
namespace {

namespace narrow = conv_cuda::narrow;
using testing::close;
using Case = testing::ConvCase;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::sample;

class ConvNarrowCuda : public testing::CudaTest {};

// Of a block: 227 on an H100, 163 on an A100, 99 on GeForces, which do without the largest kernels.
size_t shared_kib() { return cuda::device_info(cuda::current_device()).shared >> 10; }

struct Operands {
  Tensor x, gy, want;
  Tensor on_gpu(const Tensor& t) const { return t.to(kGpu).to(Layout::channels_last); }
  explicit Operands(const Case& c) {
    const ConvProblem d = c.problem();
    x = sample({d.n, d.c, d.h, d.w}, 1, DType::bf16);
    gy = sample({d.n, d.k, d.p, d.q}, 2, DType::bf16);
    want =
        conv2d_grad_weight(gy.to(DType::f64), x.to(DType::f64), {d.k, d.c, d.r, d.s}, c.options());
  }
};

narrow::WeightStrides oihw(const ConvProblem& d) { return {d.c * d.r * d.s, d.r * d.s, d.s, 1}; }

Tensor gradient(const Case& c, const Operands& t, const narrow::Division& by,
                DType dtype = DType::f32) {
  const ConvProblem d = c.problem();
  const Tensor gw = Tensor::full({d.k, d.c, d.r, d.s}, -99, dtype, kGpu);
  narrow::grad_weight(d, t.on_gpu(t.gy), t.on_gpu(t.x), gw, oihw(d), by);
  return gw;
}

void check(const Case& c) {
  ASSERT_TRUE(narrow::supports(c.problem())) << c.text();
  const Operands t(c);
  const narrow::Division by = narrow::division(c.problem());
  const Tensor gw = gradient(c, t, by);
  EXPECT_TRUE(close(gw, t.want, 1e-5)) << c.text();
  EXPECT_TRUE(identical(gw, gradient(c, t, by))) << c.text();
  EXPECT_TRUE(close(gradient(c, t, by, DType::bf16), t.want, 4e-3)) << c.text();
  if (!narrow::preferred(c.problem())) return;
  EXPECT_TRUE(identical(
      gw, conv2d_grad_weight(t.gy.to(kGpu), t.x.to(kGpu), gw.shape(), c.options(), DType::f32)))
      << c.text();
}

TEST_F(ConvNarrowCuda, EqualsF64) {
  for (const int64_t kernel : {1, 3})
    for (const int64_t stride : {1, 2})
      for (const int64_t c : {3, 8, 16, 32, 64})
        for (const int64_t k : {16, 32, 64}) check({3, c, k, 7, kernel, stride});
  check({1, 32, 64, 33, 3, 1});  // fits a GeForce, a tile of another width would not
}

TEST_F(ConvNarrowCuda, Sizes) {
  for (const int64_t kernel : {1, 3})
    for (const int64_t stride : {1, 2})
      for (const int64_t size : {1, 2, 8, 15, 16, 28, 33})
        check({size < 9 ? 5 : 2, 16, 16, size, kernel, stride});
  check({1, 1, 16, 28, 3, 1});
  for (const int64_t kernel : {1, 3}) check({3, 64, 3, 7, kernel, 1});  // few output channels
  check({2, 16, 1, 33, 3, 1});
  check({1, 48, 48, 6, 3, 1});
  check({9, 128, 128, 4, 3, 1});
}

// Every division; in pieces of many tiles, of which each waits for the one before it.
TEST_F(ConvNarrowCuda, Divisions) {
  for (const int64_t kernel : {1, 3})
    for (const int64_t stride : {1, 2}) {
      for (const int in : {8, 16, 32}) {
        const Case many{5, in == 8 ? 5 : 32, 64, 20, kernel, stride};
        const Operands t(many);
        for (const int out : {16, 32, 64})
          for (const int pieces : {1, 2, 3}) {
            if (in == 16 && out == 64) continue;
            if (in == 32 && shared_kib() < 163) continue;
            EXPECT_TRUE(close(gradient(many, t, {out, in, pieces}), t.want, 1e-5))
                << many.text() << " in " << pieces << " of " << in << "->" << out;
          }
      }
    }
}

TEST_F(ConvNarrowCuda, StoresInAnyLayout) {
  const Case c{2, 16, 32, 6, 3, 1};
  const ConvProblem d = c.problem();
  const Operands t(c);
  const narrow::Division by = narrow::division(d);
  const Tensor ohwi = Tensor::empty({d.k, d.r, d.s, d.c}, DType::f32, kGpu);
  narrow::grad_weight(d, t.on_gpu(t.gy), t.on_gpu(t.x), ohwi, {d.r * d.s * d.c, 1, d.s * d.c, d.c},
                      by);
  const std::vector<float> want = gradient(c, t, by).to_vector<float>();
  const std::vector<float> got = ohwi.to_vector<float>();
  size_t i = 0;
  for (int64_t k = 0; k < d.k; ++k)
    for (int64_t channel = 0; channel < d.c; ++channel)
      for (int64_t tap = 0; tap < 9; ++tap)
        EXPECT_EQ(want[i++], got[static_cast<size_t>((k * 9 + tap) * d.c + channel)]);
}

TEST_F(ConvNarrowCuda, Refuses) {
  const auto changed = [](const auto& change) {
    ConvProblem d = Case{2, 16, 16, 8, 3, 1}.problem();
    change(d);
    return narrow::supports(d);
  };
  EXPECT_TRUE(changed([](ConvProblem&) {}));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.groups = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.dil_w = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.pad_h = 0; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.stride_h = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.stride_h = d.stride_w = 3; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.r = d.s = 5; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.c = 12; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.k = 24; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.c = 256; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.n = 0; }));

  const Case c{2, 16, 16, 8, 3, 1};
  const Operands t(c);
  EXPECT_THROW(gradient(c, t, {64, 16, 1}), Error);
  EXPECT_THROW(gradient(c, t, {32, 16, 1}), Error);
  EXPECT_THROW(gradient(c, t, {16, 32, 1}), Error);
  EXPECT_THROW(gradient(c, t, {16, 16, 2}), Error);  // one tile
}

TEST_F(ConvNarrowCuda, ProfileNamesTheKernel) {
  const Case c{2, 16, 16, 8, 3, 1};
  const Operands t(c);
  const auto note = [&] {
    profiler::start();
    conv2d_grad_weight(t.on_gpu(t.gy), t.on_gpu(t.x), t.want.shape(), c.options());
    profiler::stop();
    std::string text;
    for (const auto& e : profiler::events())
      if (e.op == "conv2d_grad_weight") text = e.note;
    return text;
  };
  EXPECT_THAT(note(), HasSubstr("narrow 16->16 in 1 n2 16->16 8x8 k3x3 s1 p1"));
  math_settings().cuda_conv = CudaConv::im2col;
  EXPECT_THAT(note(), HasSubstr("im2col"));
  math_settings().cuda_conv = CudaConv::automatic;
}

// ---- forward and input gradient

const testing::WholeKernels kWhole{narrow::supports_whole, narrow::supports_whole,
                                   narrow::preferred_whole, narrow::forward, narrow::grad_input};
void check_whole(const Case& c) { testing::check_whole(c, kWhole); }

TEST_F(ConvNarrowCuda, ForwardAndInputGradientEqualF64) {
  for (const int64_t c : {3, 8, 16, 32, 64})
    for (const int64_t k : {1, 8, 16, 32, 64}) {
      const Case one{3, c, k, 7, 3, 1};
      const bool large = std::max(c, k) == 64, largest = std::min(c, k) == 64;
      if (((largest && shared_kib() < 227) || (large && shared_kib() < 163)) &&
          !narrow::supports_whole(one.problem()))
        continue;  // cuDNN's
      check_whole(one);
    }
}

TEST_F(ConvNarrowCuda, ForwardOfAnySize) {
  for (const int64_t size : {1, 2, 8, 15, 16, 28, 33})
    check_whole({size < 9 ? 6 : 2, 16, 16, size, 3, 1});
  check_whole({40, 3, 16, 8, 3, 1});  // several tiles of several images for a block
}

TEST_F(ConvNarrowCuda, ForwardRefuses) {
  const auto changed = [](const auto& change) {
    ConvProblem d = Case{2, 16, 16, 8, 3, 1}.problem();
    change(d);
    return narrow::supports_whole(d);
  };
  EXPECT_TRUE(changed([](ConvProblem&) {}));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.groups = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.dil_w = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.pad_w = 0; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.stride_h = d.stride_w = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.r = d.s = 1; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.c = 12; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.k = 128; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.n = 0; }));
}

TEST_F(ConvNarrowCuda, AutotuneKeepsOneOfBoth) {
  if (cuda::is_emulated()) GTEST_SKIP() << "needs a real GPU: cuDNN";
  math_settings().autotune = true;
  const Case c{4, 32, 32, 16, 3, 1};
  const Operands t(c);
  const auto run = [&] {
    return conv2d_grad_weight(t.on_gpu(t.gy), t.on_gpu(t.x), t.want.shape(), c.options(),
                              DType::f32);
  };
  const Tensor first = run();
  EXPECT_TRUE(close(first, t.want, 2e-2));
  EXPECT_TRUE(identical(first, run()));
  math_settings().autotune = false;
}

}  // namespace
}  // namespace mtcki

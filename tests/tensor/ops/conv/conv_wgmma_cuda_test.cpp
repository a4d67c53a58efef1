// bf16 convolutions by warpgroup products, against f64 loops on the CPU with the same rounded
// operands.
#include <gmock/gmock.h>

#include "tensor/cuda/runtime.h"
#include "tensor/ops/conv/wgmma_cuda.h"
#include "tensor/profiler.h"
#include "tests/tensor/ops/conv/conv_cuda_testing.h"

namespace mtcki {
namespace {

namespace wgmma = conv_cuda::wgmma;
using Case = testing::ConvCase;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::sample;

class ConvWgmmaCuda : public testing::CudaTest {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    if (IsSkipped()) return;
    if (!wgmma::supports_forward(Case{1, 64, 64, 8, 3, 1}.problem()))
      GTEST_SKIP() << "needs compute capability 9.0";
  }
};

const testing::WholeKernels kWhole{wgmma::supports_forward, wgmma::supports_grad_input,
                                   wgmma::preferred, wgmma::forward, wgmma::grad_input};
void check(const Case& c) { testing::check_whole(c, kWhole); }

TEST_F(ConvWgmmaCuda, EqualsF64) {
  for (const int64_t size : {8, 16}) {  // both forms of pictures
    check({2, 64, 64, size, 3, 1});
    check({2, 64, 128, size, 3, 1});
    check({2, 192, 64, size, 3, 1});
  }
}

TEST_F(ConvWgmmaCuda, Sizes) {
  for (const int64_t size : {1, 7, 9, 20, 33}) check({size < 9 ? 3 : 1, 64, 64, size, 3, 1});
}

// Two units for a warpgroup and one for others; chosen without timing.
TEST_F(ConvWgmmaCuda, Rounds) {
  const int64_t blocks = std::max(1, cuda::device_info(kGpu.index).multiprocessors);
  const Case c{4 * blocks + 3, 64, 64, 8, 3, 1};
  EXPECT_TRUE(wgmma::preferred(c.problem()));
  const ConvProblem d = c.problem();
  const Tensor x = sample({d.n, d.c, d.h, d.w}, 1, DType::bf16);
  const Tensor w = sample({d.k, d.c, 3, 3}, 2, DType::bf16);
  const Tensor y = Tensor::full(x.shape(), -99, DType::bf16, kGpu).to(Layout::channels_last);
  wgmma::forward(d, x.to(kGpu).to(Layout::channels_last), w.to(kGpu).to(Layout::channels_last), {},
                 y);
  EXPECT_TRUE(testing::close(y, conv2d(x.to(DType::f32), w.to(DType::f32), {}, c.options()), 4e-3));
  if (cuda::is_emulated()) {
    EXPECT_TRUE(identical(y, conv2d(x.to(kGpu), w.to(kGpu), {}, c.options())));
  }
}

TEST_F(ConvWgmmaCuda, Refuses) {
  const auto changed = [](const auto& change) {
    ConvProblem d = Case{2, 64, 64, 8, 3, 1}.problem();
    change(d);
    EXPECT_EQ(wgmma::supports_forward(d), wgmma::supports_grad_input(d));
    return wgmma::supports_forward(d);
  };
  EXPECT_TRUE(changed([](ConvProblem&) {}));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.groups = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.dil_w = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.pad_w = 0; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.stride_h = d.stride_w = 2; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.r = d.s = 1; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.c = 32; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.k = 96; }));
  EXPECT_FALSE(changed([](ConvProblem& d) { d.n = 0; }));
  EXPECT_FALSE(wgmma::supports_forward(Case{2, 128, 64, 8, 3, 1}.problem()));
  EXPECT_FALSE(wgmma::supports_grad_input(Case{2, 64, 128, 8, 3, 1}.problem()));
}

TEST_F(ConvWgmmaCuda, ProfileNamesTheKernel) {
  const Case c{8, 64, 64, 64, 3, 1};
  const ConvProblem d = c.problem();
  const Tensor x = sample({d.n, d.c, d.h, d.w}, 1, DType::bf16).to(kGpu);
  const Tensor w = sample({d.k, d.c, 3, 3}, 2, DType::bf16).to(kGpu);
  profiler::start();
  conv2d(x, w, {}, c.options());
  profiler::stop();
  std::string note;
  for (const auto& e : profiler::events())
    if (e.op == "conv2d") note = e.note;
  EXPECT_THAT(note, HasSubstr("wgmma n8 64->64 64x64 k3x3 s1 p1"));
}

}  // namespace
}  // namespace mtcki

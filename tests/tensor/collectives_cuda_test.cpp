// NCCL by itself, with a single rank: that it starts, its three collectives, and that they can be
// captured. What several ranks compute is tested in tests/mpi.
#include <gtest/gtest.h>

#include "tensor/cuda/collectives.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"

namespace mtcki {
namespace {

using testing::kGpu;

class CollectivesCuda : public testing::CudaTest {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    if (IsSkipped()) return;
    collectives = cuda::make_collectives(0, 1, [](void*, size_t) {});
    if (!collectives) GTEST_SKIP() << "this build has no NCCL";
  }
  std::unique_ptr<cuda::Collectives> collectives;
};

TEST_F(CollectivesCuda, OfOneRankChangeNothing) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64}) {
    const Tensor want = Tensor::from<float>({1, 2, 3, -4, 5}, {5}).to(dtype);
    const Tensor t = want.to(kGpu), all = Tensor::zeros_like(t);
    collectives->sum(t.raw(), t.numel(), dtype);
    collectives->broadcast(t.raw(), t.nbytes(), 0);
    collectives->all_gather(t.raw(), all.raw(), t.nbytes());
    EXPECT_TRUE(identical(t.to(Device::cpu()), want)) << name_of(dtype);
    EXPECT_TRUE(identical(all.to(Device::cpu()), want)) << name_of(dtype);
  }
  const Tensor t = Tensor::zeros({4}, DType::bf16, kGpu);
  EXPECT_THROW(collectives->sum(t.raw(), t.numel(), DType::bf16), DTypeError);
}

TEST_F(CollectivesCuda, CanBeCaptured) {
  const Tensor t = Tensor::full({5}, 3.0).to(kGpu);
  Tensor all = Tensor::zeros({5}).to(kGpu);
  const auto work = [&] {
    collectives->sum(t.raw(), t.numel(), DType::f32);
    collectives->all_gather(t.raw(), all.raw(), t.nbytes());
  };
  work();  // what a first call sets up is not captured
  all.zero_();
  cuda::Graph graph;
  graph.begin();
  work();
  graph.end();
  EXPECT_TRUE(identical(all.to(Device::cpu()), Tensor::zeros({5})));
  graph.launch();
  EXPECT_TRUE(identical(all.to(Device::cpu()), Tensor::full({5}, 3.0)));
}

}  // namespace
}  // namespace mtcki

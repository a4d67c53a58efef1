// Weight gradients on side streams: equal to the CPU's, also when a weight is used more than once
// or has a gradient already; nothing stays behind, after an error neither. Branches: the bits of
// one part after the other, where gradients cross streams too, also captured.
#include <gmock/gmock.h>

#include <cstdlib>

#include "autograd/functions.h"
#include "autograd/side_stream.h"
#include "tensor/allocator.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/cuda_testing_products.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;

class SideStreamCuda : public CudaTest {};

// The gradient of w after `passes` backward passes through three convolutions with it.
Tensor gradient(Device device, int passes) {
  const Variable w(sample({16, 16, 3, 3}, 1, DType::f32).to(device), true);
  for (int i = 0; i < passes; ++i) {
    Variable y(sample({4, 16, 9, 9}, 2, DType::f32).to(device));
    for (int layer = 0; layer < 3; ++layer) y = conv2d(y, w, {}, Conv2dOptions(1, 1));
    mean(mul(y, y)).backward();
  }
  return w.grad();
}

TEST_F(SideStreamCuda, AWeightThatIsUsedThreeTimes) {
  for (const int passes : {1, 2})
    EXPECT_TRUE(close(gradient(kGpu, passes), gradient(Device::cpu(), passes).to(DType::f64), 1e-4))
        << passes;
  EXPECT_TRUE(identical(gradient(kGpu, 2), gradient(kGpu, 2)));
}

TEST_F(SideStreamCuda, HoldsWhatABranchReadsUntilItIsJoined) {
  release_cached_memory(kGpu);
  const size_t before = memory_stats(kGpu).in_use;
  {
    const SideStreamScope scope;
    const Tensor y = on_side_stream({Tensor::zeros({1024}, DType::f32, kGpu)},
                                    [] { return Tensor::zeros({4}, DType::f32, kGpu); });
    EXPECT_GE(memory_stats(kGpu).in_use, before + 4096);
    join_side_streams();
    EXPECT_LT(memory_stats(kGpu).in_use, before + 4096);
  }
  const auto fails = [] {
    const SideStreamScope scope;
    on_side_stream({Tensor::zeros({1024}, DType::f32, kGpu)},
                   []() -> Tensor { throw ShapeError("as planned"); });
  };
  EXPECT_THROW(fails(), ShapeError);
  EXPECT_EQ(memory_stats(kGpu).in_use, before);
  EXPECT_EQ(cuda::stream_index(), 0);
}

// Three parts over the same x, as teachers over the same images; a weight that two of them share.
struct Parts {
  Variable x, shared;
  std::vector<Variable> own;
  Parts() {
    const auto leaf = [](const Shape& shape, uint64_t seed) {
      return Variable(sample(shape, seed, DType::f32).to(kGpu), true);
    };
    x = leaf({4, 8, 9, 9}, 1);
    shared = leaf({8, 8, 3, 3}, 2);
    for (uint64_t i = 0; i < 3; ++i) own.push_back(leaf({8, 8, 3, 3}, 3 + i));
  }
  std::vector<Variable> leaves() const { return {x, shared, own[0], own[1], own[2]}; }

  // The loss, then the gradients of all leaves.
  std::vector<Tensor> step(size_t parts) const {
    for (Variable v : leaves()) v.set_grad({});
    const Variable y = relu(x);
    std::vector<Variable> terms(3);
    Branches branches(parts, kGpu);
    for (size_t i = 0; i < 3; ++i)
      branches.run([&, i] {
        Variable h = conv2d(y, own[i], {}, Conv2dOptions(1, 1));
        h = conv2d(relu(h), i == 1 ? own[i] : shared, {}, Conv2dOptions(1, 1));
        terms[i] = mean(mul(h, h));
      });
    branches.join();
    const Variable loss = add(add(terms[0], mul(terms[1], 2.0)), terms[2]);
    loss.backward();
    std::vector<Tensor> out{loss.data()};
    for (const Variable& v : leaves()) out.push_back(v.grad());
    return out;
  }
};

void expect_identical(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(identical(a[i], b[i])) << i;
}

TEST_F(SideStreamCuda, BranchesChangeNoBit) {
  const Parts p;
  const std::vector<Tensor> want = p.step(1);
  for (int i = 0; i < 3; ++i) expect_identical(p.step(3), want);
  EXPECT_EQ(cuda::stream_index(), 0);
}

TEST_F(SideStreamCuda, BranchesInACapturedStep) {
  const Parts p;
  const std::vector<Tensor> want = p.step(1);
  std::vector<Tensor> kept;
  for (const Tensor& t : want) kept.push_back(Tensor::zeros(t.shape(), t.dtype(), kGpu));
  StepGraph graph(true);
  for (int i = 0; i < 5; ++i) {
    for (Tensor& t : kept) t.zero_();
    graph.run("step", [&] {
      const std::vector<Tensor> got = p.step(3);
      for (size_t k = 0; k < got.size(); ++k) kept[k].copy_(got[k]);
    });
    expect_identical(kept, want);
  }
  EXPECT_EQ(graph.captured(), 1);
}

TEST_F(SideStreamCuda, ABranchThatFailsLeavesNothingBehind) {
  const Parts p;
  const std::vector<Tensor> want = p.step(1);
  const auto fails = [&] {
    Branches branches(2, kGpu);
    branches.run([&] { relu(p.x); });
    branches.run([] { throw ShapeError("as planned"); });
  };
  EXPECT_THROW(fails(), ShapeError);
  EXPECT_EQ(cuda::stream_index(), 0);
  expect_identical(p.step(3), want);
}

// What a branch gave back of another stream's memory is handed out only after the join.
TEST_F(SideStreamCuda, ABlockOfAnotherStreamWaitsForTheJoin) {
  if (std::getenv("MTCKI_CUDA_ALLOC"))
    GTEST_SKIP() << "the driver, not the cache, hands out blocks";
  const auto block = [] { return Tensor::zeros({12345}, DType::f32, kGpu); };
  block();  // one free block of this size
  Tensor lent = block();
  const void* const address = lent.raw();
  Branches branches(2, kGpu);
  branches.run([&] {
    relu(Variable(lent));
    lent = Tensor();
  });
  EXPECT_NE(block().raw(), address);
  branches.join();
  const Tensor a = block(), b = block();
  EXPECT_TRUE(a.raw() == address || b.raw() == address);
}

TEST_F(SideStreamCuda, OnTheCpuPartsRunAtOnce) {
  Branches branches(3, Device::cpu());
  int ran = 0;
  for (int i = 0; i < 3; ++i) branches.run([&] { ran += cuda::stream_index() == 0; });
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace mtcki

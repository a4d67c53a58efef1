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

TEST_F(SideStreamCuda, CanBeSwitchedOff) {
  const auto stream_of_work = [] {
    int stream = 0;
    const SideStreamScope scope;
    on_side_stream(kGpu, [&] { return stream = cuda::stream_index(), Tensor::zeros({4}); });
    return stream;
  };
  EXPECT_GT(stream_of_work(), 0);
  setenv("MTCKI_STREAMS", "0", 1);
  EXPECT_EQ(stream_of_work(), 0);
  unsetenv("MTCKI_STREAMS");
}

Tensor block() { return Tensor::zeros({12345}, DType::f32, kGpu); }
bool cache_hands_out_blocks() { return !std::getenv("MTCKI_CUDA_ALLOC"); }  // and not the driver

// What a weight gradient reads is handed out again when stream 0 has waited for it.
TEST_F(SideStreamCuda, WhatAWeightGradientReadsWaitsForTheJoin) {
  if (!cache_hands_out_blocks()) GTEST_SKIP() << "the driver hands out blocks";
  release_cached_memory(kGpu);
  Tensor lent = block();
  const void* const address = lent.raw();
  {
    const SideStreamScope scope;
    on_side_stream(kGpu, [&] { return mul(lent, 2.0); });
    EXPECT_FALSE(lent.unique()) << "it may not be written in place";
    EXPECT_TRUE(lent.only_handle());
    lent = Tensor();
    EXPECT_NE(block().raw(), address);
    join_side_streams();
    const Tensor a = block(), b = block();
    EXPECT_TRUE(a.raw() == address || b.raw() == address);
  }
  const size_t before = memory_stats(kGpu).in_use;
  const auto fails = [&] {
    const SideStreamScope scope;
    const Tensor own = block();
    on_side_stream(kGpu, [&]() -> Tensor {
      mul(own, 2.0);
      throw ShapeError("as planned");
    });
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

// A block of stream 0 that a branch reads is handed out after the join only, whoever gives it back.
TEST_F(SideStreamCuda, ABlockThatABranchReadsWaitsForTheJoin) {
  if (!cache_hands_out_blocks()) GTEST_SKIP() << "the driver hands out blocks";
  for (const bool within : {true, false}) {
    release_cached_memory(kGpu);
    Tensor lent = block();
    const void* const address = lent.raw();
    Branches branches(2, kGpu);
    branches.run([&] {
      relu(Variable(lent));
      if (within) lent = Tensor();
    });
    EXPECT_FALSE(lent.unique());
    lent = Tensor();
    EXPECT_NE(block().raw(), address) << within;
    branches.join();
    const Tensor a = block(), b = block();
    EXPECT_TRUE(a.raw() == address || b.raw() == address) << within;
  }
}

// Within a branch the parts of another Branches run in turn; its join leaves the outer part alone.
TEST_F(SideStreamCuda, BranchesWithinABranch) {
  const Tensor x = Tensor::full({1000}, 2.0, DType::f32, kGpu);
  Tensor out;
  Branches outer(2, kGpu);
  outer.run([&] {
    Branches inner(2, kGpu);
    inner.run([&] { relu(Variable(x)); });
    inner.join();
    out = mul(x, 3.0);
  });
  outer.run([] {});
  outer.join();
  EXPECT_EQ(out.slice(0, 1).item(), 6.0);
}

// So does a backward; what it leaves in .grad() may be used in the branch at once, also where stream
// 0 added up the gradients.
TEST_F(SideStreamCuda, ABackwardWithinABranch) {
  const Tensor x = Tensor::full({1000}, 2.0, DType::f32, kGpu);
  Tensor out;
  Branches outer(2, kGpu);
  outer.run([&] {
    const Variable v(x, true);
    for (int i = 0; i < 2; ++i) mean(mul(v, v)).backward();
    out = mul(v.grad(), 3.0);
  });
  outer.run([] {});
  outer.join();
  EXPECT_NEAR(out.slice(0, 1).item(), 2 * 3.0 * 2 * 2.0 / 1000, 1e-6);
}

// The scalar gradient that a branch and stream 0 share is given back by stream 0 while the branch
// may still be reading it.
TEST_F(SideStreamCuda, AGradientThatABranchAndStreamZeroShare) {
  const auto gradient = [](size_t parts) {
    const Variable x(sample({64}, 1, DType::f32).to(kGpu), true);
    const Variable y = relu(x);
    const Variable here = mul(mean(mul(y, y)), 5.0);
    Variable there;
    Branches branches(parts, kGpu);
    branches.run([&] { there = mean(mul(y, 2.0)); });
    branches.run([] {});
    branches.join();
    mul(add(there, here), 2.0).backward();
    return x.grad();
  };
  const Tensor want = gradient(1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(identical(gradient(2), want)) << i;
}

// Both get the gradient as it is; to what stream 0 has of it more is added, which may not happen in
// place while the branch reads.
TEST_F(SideStreamCuda, AGradientThatABranchReadsIsNotAddedTo) {
  const auto gradients = [](size_t parts) {
    const Variable x(sample({64}, 1, DType::f32).to(kGpu), true);
    const Variable y = relu(x), z = mul(y, 3.0);
    Variable there;
    Branches branches(parts, kGpu);
    branches.run([&] { there = mul(y, y); });
    branches.run([] {});
    branches.join();
    // z is older than the branch, so that the sum for it waits while the branch goes back.
    mean(add(add(there, z), mul(z, z))).backward();
    return x.grad();
  };
  const Tensor want = gradients(1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(identical(gradients(2), want)) << i;
}

// Two branches train on top of an activation that the backward computes again: the second to come
// waits for the first.
TEST_F(SideStreamCuda, ARecipeThatTwoBranchesUse) {
  const auto gradients = [](size_t parts) {
    const auto leaf = [](const Shape& shape, uint64_t seed) {
      return Variable(sample(shape, seed, DType::f32).to(kGpu), true);
    };
    const Variable x = leaf({4, 8, 9, 9}, 1), gamma = leaf({8}, 2), beta = leaf({8}, 3);
    const std::vector<Variable> w{leaf({8, 8, 3, 3}, 4), leaf({8, 8, 3, 3}, 5)};
    const Variable y =
        batch_norm_train(x, gamma, beta, {}, {}, 0.1, 1e-5, Activation::relu(), {}, true);
    std::vector<Variable> terms(2);
    Branches branches(parts, kGpu);
    for (size_t i = 0; i < 2; ++i)
      branches.run([&, i] {
        const Variable h = conv2d(y, w[i], {}, Conv2dOptions(1, 1));
        terms[i] = mean(mul(h, h));
      });
    branches.join();
    add(terms[0], terms[1]).backward();
    return std::vector<Tensor>{x.grad(), gamma.grad(), w[0].grad(), w[1].grad()};
  };
  const std::vector<Tensor> want = gradients(1);
  for (int i = 0; i < 3; ++i) expect_identical(gradients(2), want);
}

TEST_F(SideStreamCuda, OnTheCpuPartsRunAtOnce) {
  Branches branches(3, Device::cpu());
  int ran = 0;
  for (int i = 0; i < 3; ++i) branches.run([&] { ran += cuda::stream_index() == 0; });
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace mtcki

// StepGraph: a captured step computes the bits of the eager one, keeps its memory to itself, and
// says what it cannot do.
#include <gmock/gmock.h>

#include <functional>

#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/cuda/step_inputs.h"
#include "tensor/cuda/timing.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;
using testing::kGpu;
using testing::sample;

class StepGraphCuda : public testing::CudaTest {};

// y <- y / 2 + x * rate, twice over, with temporaries, and a counter on the host.
struct Work {
  explicit Work(bool capture) : graph(capture), inputs(kGpu) {}
  void step(int i, const std::string& key = "k") {
    const Tensor x = inputs.set("x", sample({33}, static_cast<uint64_t>(i), DType::f32));
    const Tensor rate = inputs.set("rate", 0.1 * i);
    graph.run(key, [&] {
      const Tensor a = mul(x, rate), b = add(mul(y, 0.5), a);
      add_(y, sub(b, y));
      host_work([this] { ++count; });
    });
  }
  StepGraph graph;
  StepInputs inputs;
  Tensor y = Tensor::zeros({33}, DType::f32, kGpu);
  int count = 0;
};

TEST_F(StepGraphCuda, ReplaysEqualEagerSteps) {
  Work eager(false), captured(true);
  for (int i = 0; i < 20; ++i) {  // more than the inputs have slots
    eager.step(i);
    captured.step(i);
    EXPECT_TRUE(identical(eager.y, captured.y)) << "step " << i;
  }
  EXPECT_EQ(captured.graph.captured(), 1);
  EXPECT_EQ(captured.graph.replayed(), 20 - StepGraph::kWarmup - 1);
  EXPECT_EQ(captured.count, 20);
  EXPECT_EQ(eager.graph.captured(), 0);
}

TEST_F(StepGraphCuda, TimesWorkInAGraphOrEagerly) {
  const Tensor x = sample({1000}, 1, DType::f32).to(kGpu);
  int issued = 0;
  const auto work = [&] {
    ++issued;
    relu(x);
  };
  EXPECT_GT(cuda::microseconds_of(work), 0);
  EXPECT_EQ(issued, 12);  // twice eagerly, ten times in the graph
  EXPECT_FALSE(cuda::capturing());
  // It cannot be captured: the time of the second eager run.
  issued = 0;
  EXPECT_GT(cuda::microseconds_of([&] {
              work();
              x.slice(0, 1).to_vector<float>();
            }),
            0);
  EXPECT_EQ(issued, 3);
  EXPECT_FALSE(cuda::capturing());
  const auto fails = [&] {
    if (cuda::capturing()) throw ShapeError("as planned");
    work();
  };
  EXPECT_THROW(cuda::microseconds_of(fails), ShapeError);
  EXPECT_FALSE(cuda::capturing());
}

TEST_F(StepGraphCuda, EachStructureHasItsGraph) {
  Work eager(false), captured(true);
  for (int i = 0; i < 30; ++i) {
    const std::string key = i % 5 == 0 ? "" : i % 2 ? "odd" : "even";
    eager.step(i, key);
    captured.step(i, key);
  }
  EXPECT_TRUE(identical(eager.y, captured.y));
  EXPECT_EQ(captured.graph.captured(), 2);
  captured.graph.clear();
  captured.step(31);
  eager.step(31);
  EXPECT_TRUE(identical(eager.y, captured.y));
}

TEST_F(StepGraphCuda, ForgetsTheOldestGraph) {
  StepGraph graph(true, 2);
  const Tensor x = Tensor::zeros({1}, DType::f32, kGpu);
  const auto run = [&](const char* key) {
    for (int i = 0; i <= StepGraph::kWarmup; ++i)
      graph.run(key, [&] { add_(x, Tensor::full({1}, 1, DType::f32, kGpu)); });
  };
  run("a");
  run("b");
  run("a");  // replays
  run("c");  // in place of b
  run("a");
  EXPECT_EQ(graph.captured(), 3);
  run("b");
  EXPECT_EQ(graph.captured(), 4);
  EXPECT_EQ(x.item(), 6 * (StepGraph::kWarmup + 1));
}

TEST_F(StepGraphCuda, MemoryOfACapturedStepIsNotHandedOut) {
  StepGraph graph(true);
  const Tensor y = Tensor::zeros({1000}, DType::f32, kGpu);
  void* inside = nullptr;
  const auto step = [&] {
    const Tensor t = Tensor::full({1000}, 3.0, DType::f32, kGpu);
    inside = t.raw();
    add_(y, t);
  };
  for (int i = 0; i <= StepGraph::kWarmup; ++i) graph.run("k", step);
  const uint64_t before = memory_stats(kGpu).system_allocations;
  for (int i = 0; i < 3; ++i) graph.run("k", step);
  EXPECT_EQ(memory_stats(kGpu).system_allocations, before);
  release_cached_memory(kGpu);  // leaves it alone
  const Tensor other = Tensor::full({1000}, 7.0, DType::f32, kGpu);
  EXPECT_NE(other.raw(), inside);
  graph.run("k", step);
  EXPECT_EQ(other.slice(0, 1).item(), 7.0);
  EXPECT_EQ(y.slice(999, 1000).item(), 3.0 * (StepGraph::kWarmup + 5));
}

// A graph writes to its temporaries at every launch; what another structure creates later, and
// keeps, lies elsewhere.
TEST_F(StepGraphCuda, WhatALaterStructureKeepsIsNotOverwritten) {
  StepGraph graph(true);
  const Tensor y = Tensor::zeros({1000}, DType::f32, kGpu);
  Tensor kept;
  const auto first = [&] { add_(y, Tensor::full({1000}, 3.0, DType::f32, kGpu)); };
  const auto later = [&] {
    if (!kept.defined()) kept = Tensor::full({1000}, 7.0, DType::f32, kGpu);
    add_(y, kept);
  };
  constexpr int kRuns = StepGraph::kWarmup + 2;
  for (int i = 0; i < kRuns; ++i) graph.run("first", first);
  for (int i = 0; i < kRuns; ++i) {
    graph.run("later", later);
    graph.run("first", first);
  }
  EXPECT_EQ(graph.replayed(), kRuns + 2);
  EXPECT_TRUE(identical(kept, Tensor::full({1000}, 7.0, DType::f32, kGpu)));
  EXPECT_TRUE(identical(y, Tensor::full({1000}, kRuns * (2 * 3.0 + 7.0), DType::f32, kGpu)));
}

// What outlives a graph, gradients say, is given back to everybody when it goes.
TEST_F(StepGraphCuda, LeavesNoMemoryBehind) {
  release_cached_memory(kGpu);
  const MemoryStats before = memory_stats(kGpu);
  for (int i = 0; i < 3; ++i) {
    Tensor outlives;
    {
      StepGraph graph(true);
      for (int j = 0; j <= StepGraph::kWarmup + 1; ++j)
        graph.run("k", [&] { outlives = Tensor::full({5000}, 3.0, DType::f32, kGpu); });
    }
    EXPECT_EQ(outlives.slice(4999, 5000).item(), 3.0);
    outlives = {};
    release_cached_memory(kGpu);
    EXPECT_EQ(memory_stats(kGpu).in_use, before.in_use);
    EXPECT_EQ(memory_stats(kGpu).cached, before.cached) << i;
  }
}

std::string refusal(const std::function<void()>& step) {
  StepGraph graph(true);
  const ContextScope module(ContextScope::Kind::module, "layer1");
  try {
    for (int i = 0; i <= StepGraph::kWarmup; ++i) graph.run("k", step);
  } catch (const CaptureError& e) {
    EXPECT_FALSE(cuda::capturing());
    return e.what();
  }
  return "no error";
}

TEST_F(StepGraphCuda, RefusesWhatCannotBeRepeated) {
  const Tensor x = Tensor::zeros({4}, DType::f32, kGpu);
  EXPECT_THAT(refusal([&] { x.slice(0, 1).item(); }), HasSubstr("copy to the host"));
  EXPECT_THAT(refusal([&] { x.slice(0, 1).item(); }), HasSubstr("layer1"));
  EXPECT_THAT(refusal([&] { cuda::synchronize(); }), HasSubstr("synchronize"));
  EXPECT_THAT(refusal([&] { Tensor::zeros({4}).to(kGpu); }), HasSubstr("unpinned"));
  StepInputs inputs(kGpu);
  EXPECT_THAT(refusal([&] { inputs.set("x", 1.0); }), HasSubstr("setting an input"));
  uint64_t step = 0;  // would be that of the capture in every replay
  EXPECT_THAT(refusal([&] {
                randn({4}, Rng{1, 2, step++}, DType::f32, kGpu);
              }),
              HasSubstr("every replay of a captured step would draw the same random numbers"));
  EXPECT_THAT(refusal([&] { randint(0, 9, {4}, Rng{1, 2, step++}, kGpu); }), HasSubstr("layer1"));
  int64_t n = 1 << 20;
  EXPECT_THAT(refusal([&] { Tensor::zeros({n += 1 << 20}, DType::f32, kGpu); }),
              HasSubstr("new memory from the driver"));
}

// The reason is the memory, then, and not the capture.
TEST_F(StepGraphCuda, NoMemoryLeftInACapture) {
  StepGraph graph(true);
  const auto step = [] {
    if (cuda::capturing())
      Tensor::empty({static_cast<int64_t>(cuda::capacity().total)}, DType::f32, kGpu);
  };
  for (int i = 0; i < StepGraph::kWarmup; ++i) graph.run("k", step);
  EXPECT_THROW(graph.run("k", step), OutOfMemoryError);
  EXPECT_FALSE(cuda::capturing());
}

// More refills than slots, with nothing between them that waits.
TEST_F(StepGraphCuda, ASlotIsFilledAgainWhenItsCopyRan) {
  StepInputs inputs(kGpu);
  std::vector<Tensor> seen;
  for (int i = 0; i < 40; ++i)
    seen.push_back(inputs.set("x", Tensor::full({5}, static_cast<double>(i))).clone());
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(seen[static_cast<size_t>(i)].slice(4, 5).item(), static_cast<double>(i));
}

TEST_F(StepGraphCuda, InputsStayWhereTheyAre) {
  StepInputs inputs(kGpu);
  const Tensor a = inputs.set("x", Tensor::full({3}, 1.0));
  const Tensor b = inputs.set("x", Tensor::full({3}, 2.0));
  EXPECT_EQ(a.raw(), b.raw());
  EXPECT_EQ(a.slice(2, 3).item(), 2.0);
  EXPECT_NE(inputs.set("x", Tensor::full({4}, 2.0)).raw(), a.raw());
  EXPECT_FALSE(inputs.set("none", Tensor()).defined());
  StepInputs host;
  const Tensor x = Tensor::full({3}, 1.0);
  EXPECT_EQ(host.set("x", x).raw(), x.raw());
}

}  // namespace
}  // namespace mtcki

// The profiler on the GPU: event pairs from a pool, no waiting inside a step, names only while a
// graph is captured.
#include <gtest/gtest.h>

#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler_activity.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::kGpu;
using testing::sample;

class ProfilerCuda : public testing::CudaTest {};

TEST_F(ProfilerCuda, EventsSayWhereTheOpRan) {
  const Tensor x = sample({2, 16, 4, 4}, 1, DType::f32),
               there = x.to(kGpu).to(Layout::channels_last);
  profiler::start();
  profiler::set_step(3);
  {
    const StageScope stage("forward");
    const ContextScope module(ContextScope::Kind::module, "act");
    relu(there);
  }
  relu(x);
  profiler::stop();
  const std::vector<profiler::Event> events = profiler::events();
  ASSERT_EQ(events.size(), 2u);
  const profiler::Event& gpu = events[0];
  EXPECT_EQ(gpu.op, "relu");
  EXPECT_EQ(gpu.module, "act");
  EXPECT_EQ(gpu.stage, "forward");
  EXPECT_EQ(gpu.device, "cuda:0");
  EXPECT_EQ(gpu.stream, 0);
  EXPECT_EQ(gpu.step, 3);
  EXPECT_EQ(gpu.shape, "[2, 16, 4, 4]");
  EXPECT_EQ(gpu.dtype, "f32");
  EXPECT_EQ(gpu.layout, "channels_last");
  EXPECT_EQ(gpu.bytes, 2.0 * 4 * 512);
  EXPECT_GT(gpu.duration_us, 0);
  EXPECT_GE(gpu.start_us, 0);
  EXPECT_GT(gpu.host_us, 0);
  EXPECT_GE(gpu.memory, 2048u);
  EXPECT_FALSE(gpu.captured);
  EXPECT_EQ(events[1].device, "cpu");
  EXPECT_DOUBLE_EQ(events[1].duration_us, events[1].host_us);
}

TEST_F(ProfilerCuda, EventsOfThePoolAreUsedAgain) {
  const Tensor x = sample({64}, 2, DType::f32).to(kGpu);
  const auto step = [&](int ops) {
    profiler::start();
    for (int i = 0; i < ops; ++i) relu(x);
    profiler::stop();
    return profiler::events().size();
  };
  EXPECT_EQ(step(5), 5u);
  const size_t made = profiler::device_events_made();
  EXPECT_GE(made, 10u);
  EXPECT_EQ(step(5), 5u);
  EXPECT_EQ(profiler::device_events_made(), made) << "a second step makes no events";
  profiler::events();  // reading twice changes nothing
  step(4);
  EXPECT_EQ(profiler::device_events_made(), made);
  step(7);
  EXPECT_LE(profiler::device_events_made(), made + 4);
}

// Begun again without events(): what was pending goes back to the pool all the same.
TEST_F(ProfilerCuda, StartReturnsWhatNobodyRead) {
  const Tensor x = sample({64}, 2, DType::f32).to(kGpu);
  for (int round = 0; round < 2; ++round) {
    profiler::start();
    for (int i = 0; i < 6; ++i) relu(x);
    profiler::stop();
  }
  const size_t made = profiler::device_events_made();
  profiler::start();
  for (int i = 0; i < 6; ++i) relu(x);
  profiler::stop();
  EXPECT_EQ(profiler::device_events_made(), made);
  EXPECT_EQ(profiler::events().size(), 6u);
}

TEST_F(ProfilerCuda, SelfTimeExcludesNestedScopes) {
  const Tensor x = sample({1 << 16}, 3, DType::f32).to(kGpu);
  profiler::start();
  {
    const ProfileScope outer("outer", 0, Traffic(1, &x));
    relu(x);
    relu(x);
  }
  profiler::stop();
  const auto events = profiler::events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[2].op, "outer");
  EXPECT_EQ(events[0].parent, events[2].id);
  EXPECT_NEAR(events[2].self_us,
              events[2].duration_us - events[0].duration_us - events[1].duration_us, 1e-6);
  EXPECT_LE(events[2].start_us, events[0].start_us);
}

TEST_F(ProfilerCuda, CapturedScopesHaveNoTimeAndTakeNoEvents) {
  const Tensor x = sample({64}, 4, DType::f32).to(kGpu);
  mul_(x, 1.0);
  const size_t made = profiler::device_events_made();
  cuda::Graph graph;
  profiler::start();
  graph.begin();
  mul_(x, 2.0);
  graph.end();
  for (int i = 0; i < 3; ++i) graph.launch();
  profiler::stop();
  const auto events = profiler::events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].captured);
  EXPECT_EQ(events[0].op, "mul_");
  EXPECT_EQ(events[0].duration_us, 0);
  EXPECT_EQ(profiler::device_events_made(), made);
}

// Eager kernels belong to the scope that launched them, those of a repeated graph to the scope that
// was open when they were captured.
TEST_F(ProfilerCuda, KernelsOfARepeatedGraphBelongToTheirOps) {
  const Tensor x = sample({64}, 6, DType::f32).to(kGpu);
  mul_(x, 1.0);
  if (const std::string why = profiler::start_kernels(); !why.empty()) GTEST_SKIP() << why;
  profiler::start();
  relu(x);
  cuda::Graph graph;
  graph.begin();
  mul_(x, 2.0);
  mul_(x, 3.0);
  graph.end();
  profiler::clear_kernels();
  for (int i = 0; i < 3; ++i) graph.launch();
  profiler::stop();
  const auto scopes = profiler::events();
  const auto records = profiler::stop_kernels();
  const auto events = profiler::attribute(scopes, records);
  ASSERT_EQ(events.size(), 6u) << "relu was forgotten";
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].op, "mul_");
    EXPECT_EQ(events[i].step, static_cast<int64_t>(i / 2)) << "in order of time";
    EXPECT_GT(events[i].self_us, 0);
    EXPECT_GT(events[i].start_us, 0) << "on the host's clock";
  }
  int calls = 0, arrows = 0;
  for (const profiler::Slice& s : profiler::timeline(scopes, records)) {
    calls += s.kind == profiler::Slice::Kind::call;
    arrows += s.kind == profiler::Slice::Kind::work && s.launch != 0;
  }
  EXPECT_GE(calls, 3);
  EXPECT_EQ(arrows, 3) << "one from each launch";
}

TEST_F(ProfilerCuda, SideStreamsAreNamed) {
  const Tensor x = sample({64}, 5, DType::f32).to(kGpu);
  profiler::start();
  cuda::wait_stream(1, 0);
  {
    const cuda::StreamScope side(1);
    relu(x);
  }
  cuda::wait_stream(0, 1);
  profiler::stop();
  const auto events = profiler::events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].stream, 1);
}

}  // namespace
}  // namespace mtcki

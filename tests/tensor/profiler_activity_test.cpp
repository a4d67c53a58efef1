// Kernels and their ops, on records as a GPU would have left them.
#include "tensor/profiler_activity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mtcki {
namespace {

using cuda::Activity;
using profiler::attribute;
using profiler::Event;
using ::testing::HasSubstr;

Event scope(int64_t id, const char* op, int64_t step, bool captured = false) {
  Event e;
  e.id = id;
  e.op = op;
  e.module = "layer1";
  e.device = "cuda:0";
  e.step = step;
  e.captured = captured;
  e.flops = 1000;
  e.host_us = 7;
  return e;
}
Activity kernel(const char* name, double start, double end, uint32_t correlation,
                uint64_t node = 0) {
  Activity a;
  a.name = name;
  a.start_us = start;
  a.end_us = end;
  a.correlation = correlation;
  a.graph_node = node;
  return a;
}
Activity call(uint32_t correlation, int64_t op) {
  Activity a;
  a.kind = Activity::Kind::correlation;
  a.correlation = correlation;
  a.op = op;
  return a;
}
Activity node(uint64_t graph_node, int64_t op) {
  Activity a;
  a.kind = Activity::Kind::node;
  a.graph_node = graph_node;
  a.op = op;
  return a;
}

TEST(ProfilerActivity, EagerKernelsBelongToTheScopeOfTheirCall) {
  // conv2d makes two calls, relu one; a copy belongs to nobody. Records come in any order.
  Activity copy = kernel("copy to the device", 140, 150, 9);
  copy.kind = Activity::Kind::copy;
  copy.bytes = 4096;
  const std::vector<Event> events =
      attribute({scope(1, "conv2d", 0), scope(2, "relu", 0)},
                {kernel("relu_kernel", 130, 133, 5), call(5, 2), call(3, 1), call(4, 1),
                 kernel("void ns::transform<float>(float*)", 100, 104, 3),
                 kernel("sm90_gemm", 105, 125, 4), copy});
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].op, "conv2d");
  EXPECT_EQ(events[0].module, "layer1");
  EXPECT_EQ(events[0].note, "ns::transform, sm90_gemm");
  EXPECT_DOUBLE_EQ(events[0].start_us, 0);
  EXPECT_DOUBLE_EQ(events[0].self_us, 24);
  EXPECT_DOUBLE_EQ(events[0].duration_us, 25) << "from the first to the last kernel";
  EXPECT_DOUBLE_EQ(events[0].flops, 1000) << "once, not per kernel";
  EXPECT_DOUBLE_EQ(events[0].host_us, 7);
  EXPECT_EQ(events[1].op, "relu");
  EXPECT_DOUBLE_EQ(events[1].self_us, 3);
  EXPECT_EQ(events[2].op, "copy to the device");
  EXPECT_EQ(events[2].module, "");
  EXPECT_DOUBLE_EQ(events[2].bytes, 8192);
  EXPECT_DOUBLE_EQ(events[2].start_us, 40);
}

TEST(ProfilerActivity, ReplayedNodesBelongToTheScopeThatCapturedThem) {
  // Two ops captured (nodes 11, 12 and 13), the graph launched twice by calls 70 and 80, which were
  // made inside some other scope.
  const std::vector<Event> events =
      attribute({scope(1, "conv2d", 0, true), scope(2, "add_", 0, true), scope(3, "step", 0)},
                {node(11, 1), node(12, 1), node(13, 2), call(70, 3), call(80, 3),
                 kernel("b", 210, 230, 80, 12), kernel("a", 200, 210, 80, 11),
                 kernel("add", 230, 231, 80, 13), kernel("a", 100, 111, 70, 11),
                 kernel("b", 111, 130, 70, 12), kernel("add", 130, 132, 70, 13)});
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].op, "conv2d");
  EXPECT_EQ(events[0].step, 0);
  EXPECT_DOUBLE_EQ(events[0].self_us, 30);
  EXPECT_FALSE(events[0].captured);
  EXPECT_EQ(events[0].host_us, 0);
  EXPECT_EQ(events[1].op, "add_");
  EXPECT_DOUBLE_EQ(events[1].self_us, 2);
  EXPECT_EQ(events[2].op, "conv2d");
  EXPECT_EQ(events[2].step, 1) << "the second replay";
  EXPECT_DOUBLE_EQ(events[2].start_us, 100);
  EXPECT_DOUBLE_EQ(events[2].self_us, 30);
  EXPECT_EQ(events[3].step, 1);
}

TEST(ProfilerActivity, UnknownNodesAndCallsKeepTheirKernelNames) {
  const auto events = attribute({scope(1, "conv2d", 0)}, {kernel("graph_kernel", 1, 2, 70, 99),
                                                          kernel("x", 3, 5, 8), call(70, 1)});
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].op, "graph_kernel")
      << "launched by a scope, but as a node that nobody captured";
  EXPECT_EQ(events[1].op, "x");
  EXPECT_TRUE(attribute({scope(1, "conv2d", 0)}, {}).empty());
}

TEST(ProfilerActivity, RepeatedKernelsAreCounted) {
  const auto events = attribute(
      {scope(1, "sum", 0)}, {call(1, 1), call(2, 1), kernel("r", 0, 1, 1), kernel("r", 1, 3, 2)});
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].note, "r x2");
  EXPECT_DOUBLE_EQ(events[0].self_us, 3);
}

// On a side stream and early: the kernels' own times add up to more than passes.
TEST(ProfilerActivity, WhatRunsTogetherSharesTheTime) {
  Activity beside = kernel("b", 6, 14, 2);
  beside.stream = 1;
  std::vector<profiler::Share> shares;
  const auto events = attribute(
      {scope(1, "a", 0), scope(2, "b", 0), scope(3, "c", 0)},
      {call(1, 1), call(2, 2), call(3, 3), kernel("a", 0, 10, 1), beside, kernel("c", 20, 21, 3)},
      &shares);
  ASSERT_EQ(events.size(), 3u);
  ASSERT_EQ(shares.size(), 3u);
  EXPECT_DOUBLE_EQ(events[0].self_us, 10);
  EXPECT_DOUBLE_EQ(shares[0].exclusive_us, 8);
  EXPECT_DOUBLE_EQ(events[1].self_us, 8);
  EXPECT_DOUBLE_EQ(shares[1].exclusive_us, 6);
  EXPECT_DOUBLE_EQ(shares[2].exclusive_us, 1) << "15 of 21 us something ran";
  EXPECT_EQ(shares[0].launches, 1);
}

TEST(ProfilerActivity, TimelineHasABarForEachKernelOnTheHostsClock) {
  using profiler::Slice;
  Activity clock, launch = kernel("cudaLaunchKernel", 98, 99, 3), other = launch;
  clock.kind = Activity::Kind::clock;
  clock.start_us = 1000;
  clock.end_us = 940;  // the host's clock is 60 behind
  launch.kind = other.kind = Activity::Kind::call;
  other.correlation = 77;
  Activity side = kernel("side", 103, 120, 5);
  side.stream = 7;
  // Two kernels of the first op, of which the second starts early; the second op starts early too.
  const auto slices =
      profiler::timeline({scope(1, "conv2d", 0), scope(2, "relu", 0)},
                         {clock, launch, other, call(3, 1), call(4, 1), call(5, 2), call(6, 2),
                          kernel("first", 100, 110, 3), kernel("second", 108, 120, 4), side,
                          kernel("relu", 119, 125, 6)});
  ASSERT_EQ(slices.size(), 8u) << "three ops, as relu has two streams; four kernels; one call";
  EXPECT_EQ(slices[0].kind, Slice::Kind::op);
  EXPECT_EQ(slices[0].name, "conv2d");
  EXPECT_DOUBLE_EQ(slices[0].start_us, 40);
  EXPECT_DOUBLE_EQ(slices[0].us, 20);
  EXPECT_EQ(slices[1].name, "first");
  EXPECT_EQ(slices[1].launch, 3u);
  EXPECT_DOUBLE_EQ(slices[2].start_us, 50) << "after the first, in whose op it lies";
  EXPECT_DOUBLE_EQ(slices[2].us, 10);
  EXPECT_EQ(slices[3].stream, 7);
  EXPECT_EQ(slices[3].lane, 0);
  EXPECT_EQ(slices[5].name, "relu");
  EXPECT_EQ(slices[5].lane, 1) << "beside conv2d on the same stream";
  EXPECT_EQ(slices[7].kind, Slice::Kind::call);
  EXPECT_EQ(slices[7].launch, 3u);
  EXPECT_DOUBLE_EQ(slices[7].start_us, 38);
}

TEST(ProfilerActivity, KernelNamesAreShortened) {
  EXPECT_EQ(profiler::short_kernel_name("_ZN5mtcki4cuda3addIfEEvPT_"), "mtcki::cuda::add");
  EXPECT_EQ(profiler::short_kernel_name("void mtcki::(anonymous namespace)::map<float>(float*)"),
            "mtcki::map");
  EXPECT_EQ(profiler::short_kernel_name("sm90_xmma_gemm"), "sm90_xmma_gemm");
}

TEST(ProfilerActivity, OneLineSaysWhyThereIsNone) {
  const std::string why = profiler::start_kernels();
  if (why.empty()) {
    profiler::stop_kernels();
    GTEST_SKIP() << "kernels are recorded here";
  }
  EXPECT_EQ(why.find('\n'), std::string::npos);
  EXPECT_GT(why.size(), 10u);
  EXPECT_TRUE(profiler::stop_kernels().empty());
}

}  // namespace
}  // namespace mtcki

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

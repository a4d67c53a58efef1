// The steps that profiles and benches measure, on the GPU: captured steps compute what eager ones
// do (those of synthesis and distillation: stages_cuda_test), and profiles say where ops ran.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "mtcki/report/profile_page.h"
#include "mtcki/run/measure.h"
#include "tensor/cuda/step_graph.h"
#include "tests/cuda_testing.h"

namespace mtcki {
namespace {

using testing::kGpu;

WorkloadOptions options(const std::string& step, bool graph) {
  WorkloadOptions w;
  w.step = step;
  w.model = "wrn10_1";
  w.batch = 2;
  w.device = kGpu;
  w.graph = graph;
  return w;
}

class WorkloadCuda : public testing::CudaTest {};

TEST_F(WorkloadCuda, CapturedStepsComputeWhatEagerOnesDo) {
  const auto after = [&](bool graph) {
    const Workload run = make_workload(options("train", graph));
    Variable result;
    for (int i = 0; i < StepGraph::kWarmup + 2; ++i) result = run();
    return result.data().to(Device::cpu()).to_vector<float>();
  };
  const std::vector<float> eager = after(false), captured = after(true);
  EXPECT_EQ(eager, captured);
  EXPECT_TRUE(std::isfinite(eager[0]));
}

TEST_F(WorkloadCuda, ProfilesSayWhereOpsRan) {
  for (const std::string step : {"train", "inversion", "distill"}) {
    const Workload run = make_workload(options(step, false));
    run();
    profiler::start();
    run();
    profiler::stop();
    int convolutions = 0;
    for (const OpCost& r : op_costs(profiler::events(), 1, nullptr, 1, "f32")) {
      if (r.op != "conv2d") continue;
      ++convolutions;
      EXPECT_EQ(r.device, "cuda:0") << step;
      EXPECT_GT(r.us, 0) << step;
      EXPECT_GT(r.host_us, 0) << step;
    }
    EXPECT_GT(convolutions, 5) << step;
  }
}

// The captured step, kernel by kernel: what `mtcki profile` does on a GPU when nothing is said.
TEST_F(WorkloadCuda, TheDefaultProfileIsOfKernelsOfTheCapturedStep) {
  MeasureOptions o;
  o.workload = options("train", false);
  o.steps = 3;
  const Measured m = measure(o);
  const Profile& p = m.profile;
  if (p.level != "kernels") GTEST_SKIP() << "no kernels are recorded here";
  double launches = 0, busy = 0;
  int convolutions = 0;
  for (const OpCost& r : p.rows) {
    launches += r.launches;
    busy += r.exclusive_us;
    convolutions += r.op == "conv2d";
    if (!r.module.empty()) {
      EXPECT_EQ(r.device, "cuda:0") << r.op;
    }
  }
  EXPECT_GT(convolutions, 5);
  EXPECT_GT(launches, 50);
  EXPECT_NEAR(busy + p.idle_us(), p.profiled_us, 0.3 * p.profiled_us);
  EXPECT_GT(p.timeline.size(), 50u);
  const auto calls = std::count_if(m.kernels.begin(), m.kernels.end(), [](const auto& s) {
    return s.kind == profiler::Slice::Kind::call && s.name.find("raph") != std::string::npos;
  });
  EXPECT_EQ(calls, 3) << "launches of the graph";
  EXPECT_NE(profile_page(p).find("the GPU is idle"), std::string::npos);
}

}  // namespace
}  // namespace mtcki

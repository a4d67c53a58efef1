// Whole steps: training and inference of each network, inversion, synthesis and distillation with
// one and three teachers, and a round of the method (a synthesised batch, then distillation from
// it) split by stage.
//
//   steps_bench --benchmark_filter='^train/resnet18/f32'
#include <chrono>
#include <memory>

#include "bench_common.h"
#include "mtcki/run/workload.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

WorkloadOptions options(const std::string& step, const std::string& model,
                        const std::vector<std::string>& teachers, nn::Precision precision) {
  WorkloadOptions w;
  w.step = step;
  w.model = model;
  w.teachers = teachers;
  w.batch = bench::batch();
  w.device = bench::device();
  w.precision = precision;
  return w;
}

void add(const WorkloadOptions& w, const std::string& what) {
  bench::add(str(w.step, "/", what, "/", nn::name_of(w.precision)), [w] {
    const Workload step = make_workload(w);
    bench::Case c;
    c.precision = w.precision;
    c.work = [step] { step(); };
    return c;
  });
}

// One batch of synthesis, then kd_steps of distillation.
void round(benchmark::State& state, int threads, const WorkloadOptions& synthesis,
           const WorkloadOptions& distill) {
  using Clock = std::chrono::steady_clock;
  constexpr int kSynthesisSteps = 4, kDistillSteps = 4;  // workload.cpp: a batch ends every 4 steps
  try {
    set_num_threads(threads);
    const Workload make = make_workload(synthesis), learn = make_workload(distill);
    double made = 0, learned = 0;
    const auto timed = [](const Workload& step, int n) {
      const auto start = Clock::now();
      for (int i = 0; i < n; ++i) step();
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    for (auto _ : state) {
      const double a = timed(make, kSynthesisSteps), b = timed(learn, kDistillSteps);
      state.SetIterationTime(a + b);
      made += a;
      learned += b;
    }
    const double n = static_cast<double>(state.iterations());
    state.counters["synthesis_ms"] = 1e3 * made / n;
    state.counters["distill_ms"] = 1e3 * learned / n;
  } catch (const Error& e) {
    state.SkipWithError(e.what());
  }
}

void register_cases() {
  const std::vector<std::string> three{"resnet34", "vgg11", "wrn40_2"};
  for (const nn::Precision p : bench::precision_axis()) {
    for (const char* model :
         {"wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2", "resnet18", "resnet34", "vgg11"})
      for (const char* step : {"train", "inference"}) add(options(step, model, {}, p), model);
    for (const char* teacher : {"wrn40_2", "resnet34"})
      add(options("inversion", "", {teacher}, p), teacher);
    add(options("inversion", "", three, p), "three_teachers");
    for (const char* step : {"synthesis", "distill"}) {
      add(options(step, "wrn16_1", {"wrn40_2"}, p), "wrn40_2");
      add(options(step, "resnet18", three, p), "three_teachers");
    }
    const WorkloadOptions make = options("synthesis", "", three, p);
    const WorkloadOptions learn = options("distill", "resnet18", three, p);
    const WorkloadOptions make_one = options("synthesis", "", {"wrn40_2"}, p);
    const WorkloadOptions learn_one = options("distill", "wrn16_1", {"wrn40_2"}, p);
    for (const int threads : bench::thread_axis()) {
      const auto add_round = [&](const char* what, const WorkloadOptions& a,
                                 const WorkloadOptions& b) {
        benchmark::RegisterBenchmark(
            str("round/", what, "/", nn::name_of(p), "/threads:", threads).c_str(),
            [=](benchmark::State& s) { round(s, threads, a, b); })
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      };
      add_round("wrn40_2", make_one, learn_one);
      add_round("three_teachers", make, learn);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::main(argc, argv, register_cases); }

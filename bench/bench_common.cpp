#include "bench_common.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "mtcki/host/build_info.h"
#include "mtcki/profile/profile.h"
#include "mtcki/profile/roof.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/profiler.h"
#include "tensor/rng.h"

namespace mtcki::bench {

namespace {

const std::optional<Roof>& roof() {
  static const std::optional<Roof> found = [] {
    const char* file = std::getenv("MTCKI_BENCH_ROOF");
    std::string why;
    return find_roof(device(), file ? file : "", &why);
  }();
  return found;
}

double seconds_of(const Case& c) {
  if (c.prepare) c.prepare();
  if (device().is_cpu()) {
    const auto start = std::chrono::steady_clock::now();
    c.work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  cuda::Event start, stop;
  start.record();
  c.work();
  stop.record();
  stop.wait();
  return stop.microseconds_since(start) * 1e-6;
}

// Case::captured. What is captured twice, with and without `work`, differs by `work`.
class Rotation {
 public:
  Rotation(const std::function<Case()>& make, double bytes) {
    const double l2 = static_cast<double>(cuda::device_info(device().index).l2);
    const auto sets = static_cast<int>(std::clamp(2 * l2 / std::max(bytes, 1.0) + 1, 2.0, 16.0));
    for (int i = 0; i < sets; ++i) sets_.push_back(make());
    for (int i = 0; i < StepGraph::kWarmup + 2; ++i) seconds();
  }
  double seconds() { return (time(true) - time(false)) / static_cast<double>(sets_.size()); }

 private:
  double time(bool work) {
    cuda::Event start, stop;
    start.record();
    graph_.run(work ? "work" : "prepare", [&] {
      for (const Case& c : sets_) {
        if (c.prepare) c.prepare();
        if (work) c.work();
      }
    });
    stop.record();
    stop.wait();
    return stop.microseconds_since(start) * 1e-6;
  }
  std::vector<Case> sets_;
  StepGraph graph_{true};
};

}  // namespace

Device device() {
  static const Device d = [] {
    const char* text = std::getenv("MTCKI_BENCH_DEVICE");
    const Device wanted = parse_device(text && *text ? text : "cpu");
    if (wanted.is_cuda()) cuda::use_device(wanted.index);
    return wanted;
  }();
  return d;
}

int64_t batch() {
  const char* text = std::getenv("MTCKI_BENCH_BATCH");
  const int64_t n = text ? std::atoll(text) : 0;
  return n > 0 ? n : 128;
}

std::vector<int> thread_axis() {
  const int all = machine_info().cores;
  if (device().is_cuda() || all == 1) return {all};
  return {1, all};
}

std::vector<nn::Precision> precision_axis() {
  if (device().is_cuda()) return {nn::Precision::f32, nn::Precision::tf32, nn::Precision::bf16};
  return {nn::Precision::f32, nn::Precision::bf16};
}

void run(benchmark::State& state, int threads, const std::function<Case()>& make) {
  try {
    set_num_threads(threads);
    const Case c = make();
    seconds_of(c);  // makes plans, fills the memory cache
    if (c.prepare) c.prepare();
    profiler::start();
    c.work();
    profiler::stop();
    double flops = 0, bytes = 0, floor_us = 0;
    const Roof* r = roof() ? &*roof() : nullptr;
    for (const OpCost& row :
         op_costs(profiler::events(), 1, r, threads, nn::name_of(c.precision))) {
      flops += row.flops / c.repeats;
      bytes += row.bytes / c.repeats;
      floor_us += row.floor_us / c.repeats;
    }
    reset_peak_memory(device());
    std::optional<Rotation> rotation;
    if (c.captured && device().is_cuda()) rotation.emplace(make, bytes);
    double seconds = 0;
    for (auto _ : state) {
      const double s = rotation ? std::max(1e-9, rotation->seconds()) : seconds_of(c) / c.repeats;
      state.SetIterationTime(s);
      seconds += s;
    }
    const double mean = seconds / static_cast<double>(std::max<int64_t>(1, state.iterations()));
    using benchmark::Counter;
    if (flops > 0) state.counters["FLOP/s"] = Counter(flops / mean, Counter::kDefaults);
    if (bytes > 0) state.counters["bytes/s"] = Counter(bytes / mean, Counter::kDefaults);
    if (r) state.counters["% of floor"] = 100 * floor_us * 1e-6 / mean;
    state.counters["peak_bytes"] = Counter(static_cast<double>(memory_stats(device()).peak),
                                           Counter::kDefaults, Counter::kIs1024);
  } catch (const Error& e) {
    state.SkipWithError(e.what());
  }
}

void add(const std::string& name, const std::function<Case()>& make) {
  for (const int threads : thread_axis())
    benchmark::RegisterBenchmark(str(name, "/threads:", threads).c_str(),
                                 [=](benchmark::State& s) { run(s, threads, make); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
}

Tensor noise(const Shape& shape, DType dtype, uint64_t step) {
  const Tensor t = randn(shape, Rng{0, rng_stream("bench"), step}).to(dtype).to(device());
  return shape.rank() == 4 ? t.to(preferred_layout(device(), dtype, shape[1])) : t;
}

int main(int argc, char** argv, const std::function<void()>& register_cases) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  try {
    register_cases();
    benchmark::RunSpecifiedBenchmarks();
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
  return 0;
}

}  // namespace mtcki::bench

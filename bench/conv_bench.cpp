// Convolution layers of the CIFAR networks and the generator, batch 128: every direction, oneDNN
// against the built-in kernels and the automatic choice. FLOP/s are nominal (2 MAC per tap), so
// that Winograd may exceed the machine's peak; BM_Peak measures that peak.
//
//   conv_bench --benchmark_filter='64->64 16x16' --benchmark_repetitions=5
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/simd.h"
#include "tensor/parallel.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

constexpr int64_t kBatch = 128;

struct Layer {
  int64_t c, k, size, kernel, stride;
  std::string name() const {
    return str(c, "->", k, " ", size, "x", size, kernel == 1 ? " 1x1" : "",
               stride == 2 ? " s2" : "");
  }
};

const Layer kLayers[] = {
    {3, 16, 32, 3, 1},    {16, 16, 32, 3, 1},  {16, 32, 32, 3, 1},  {32, 32, 32, 3, 1},
    {32, 64, 32, 3, 2},   {32, 32, 16, 3, 1},  {64, 64, 16, 3, 1},  {64, 128, 16, 3, 2},
    {64, 64, 8, 3, 1},    {128, 128, 8, 3, 1}, {16, 32, 32, 1, 2},  {64, 128, 16, 1, 2},
    {3, 64, 32, 3, 1},    {64, 64, 32, 3, 1},  {64, 128, 32, 3, 2}, {128, 128, 16, 3, 1},
    {128, 256, 16, 3, 2}, {256, 256, 8, 3, 1}, {256, 512, 8, 3, 2}, {512, 512, 4, 3, 1},
    {512, 512, 2, 3, 1},  {128, 64, 32, 3, 1}, {64, 3, 32, 3, 1},   {1, 16, 28, 3, 1},
    {16, 16, 28, 3, 1},   {32, 32, 14, 3, 1},  {64, 64, 7, 3, 1}};

Tensor noise(const Shape& shape) {
  Tensor t = Tensor::empty(shape);
  float* p = t.data<float>();
  uint32_t state = 12345;
  for (int64_t i = 0; i < t.numel(); ++i) {
    state = state * 1664525u + 1013904223u;
    p[i] = static_cast<float>(state >> 8) * 0x1.0p-23f - 1.0f;
  }
  return t;
}

void layer(benchmark::State& state, const Layer& l, CpuKernels kernels, int direction) {
  set_cpu_kernels(kernels);
  const Conv2dOptions o(l.stride, l.kernel / 2);
  const Tensor input = noise({kBatch, l.c, l.size, l.size});
  const Tensor x = input.to(preferred_layout({}, DType::f32, l.c));
  const Tensor w = noise({l.k, l.c, l.kernel, l.kernel});
  const Tensor gy = conv2d(x, w, Tensor(), o);
  for (auto _ : state) {
    Tensor out = direction == 0   ? conv2d(x, w, Tensor(), o)
                 : direction == 1 ? conv2d_grad_input(gy, w, x.shape(), o)
                                  : conv2d_grad_weight(gy, x, w.shape(), o);
    benchmark::DoNotOptimize(out.raw());
  }
  const double flops = 2.0 * static_cast<double>(gy.numel() * l.c * l.kernel * l.kernel);
  state.counters["FLOP/s"] = benchmark::Counter(
      flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
  set_cpu_kernels(CpuKernels::automatic);
}

// Fused multiply-adds in registers on every thread: the machine's f32 peak.
void peak(benchmark::State& state) {
  constexpr int kChains = 12;
  constexpr int64_t kSteps = 200000;
  const int64_t threads = num_threads();
  for (auto _ : state) {
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        FloatVector acc[kChains], x = broadcast(0.999f), y = broadcast(1e-3f);
        for (int i = 0; i < kChains; ++i) acc[i] = broadcast(static_cast<float>(i));
        for (int64_t s = 0; s < kSteps; ++s) {
          MTCKI_UNROLL for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * x + y;
        }
        for (int i = 0; i < kChains; ++i) benchmark::DoNotOptimize(acc[i]);
      }
    });
  }
  state.counters["FLOP/s"] = benchmark::Counter(
      2.0 * kChains * Simd<float>::width * static_cast<double>(kSteps * threads),
      benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

int register_all() {
  benchmark::RegisterBenchmark("peak", peak)->UseRealTime()->Unit(benchmark::kMillisecond);
  const char* directions[] = {"forward", "grad_input", "grad_weight"};
  for (const Layer& l : kLayers)
    for (int d = 0; d < 3; ++d) {
      const auto add = [&](const char* kernels, CpuKernels setting) {
        benchmark::RegisterBenchmark(str(l.name(), "/", directions[d], "/", kernels).c_str(),
                                     [=](benchmark::State& s) { layer(s, l, setting, d); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      };
      if (onednn_available()) add("onednn", CpuKernels::onednn);
      add("builtin", CpuKernels::builtin);
      add("automatic", CpuKernels::automatic);
    }
  return 0;
}

const int kRegistered = register_all();

}  // namespace

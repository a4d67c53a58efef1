// What the Google Benchmark programs share: the device, the axes of threads and precision, timing,
// counters.
//
//   MTCKI_BENCH_DEVICE=cuda   where to run (default cpu); MTCKI_BENCH_BATCH=256 images (default
//   128) MTCKI_BENCH_ROOF=FILE     roof for "% of floor"; default: the file of `mtcki roof`
//
// Cases are registered as closures: what one needs is made when it runs, so that a filter costs
// nothing. Times are of the device: a clock on the CPU, a pair of events on a GPU.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <vector>

#include "nn/precision.h"
#include "tensor/tensor.h"

namespace mtcki::bench {

Device device();
int64_t batch();
std::vector<int> thread_axis();               // CPU: 1 and all cores; GPU: all
std::vector<nn::Precision> precision_axis();  // f32, bf16; on a GPU tf32 too

// One iteration: `prepare` outside the clock (may be empty), `work` inside. Sets the counters
// FLOP/s, bytes/s, "% of floor" (when there is a roof) and peak_bytes from one profiled iteration.
struct Case {
  std::function<void()> prepare, work;
  nn::Precision precision = nn::Precision::f32;
  double repeats = 1;  // how often `work` does it; what is reported is of one
  // On a GPU: of several sets of operands, which take turns so that the L2 does not keep them, and as
  // a captured graph, so that the host has no part in the time. `prepare` is captured alone as well,
  // and its time taken off. For what is small and reads nothing back.
  bool captured = false;
};
void run(benchmark::State& state, int threads, const std::function<Case()>& make);

// Registers NAME[/PRECISION]/threads:N for each thread count; errors of a case skip it.
void add(const std::string& name, const std::function<Case()>& make);

// randn values of this device, dtype and its preferred layout.
Tensor noise(const Shape& shape, DType dtype = DType::f32, uint64_t step = 0);

// What main() does: registers, then runs what --benchmark_filter left.
int main(int argc, char** argv, const std::function<void()>& register_cases);

}  // namespace mtcki::bench

#include <chrono>
#include <functional>

#include "mtcki/host/build_info.h"
#include "mtcki/profile/roof.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/kernels/simd.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/parallel.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

using Clock = std::chrono::steady_clock;
using Work = std::function<void()>;

// The least time of `repeats` runs in µs, after one that does not count.
double best_us(int repeats, const Work& work) {
  work();
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    work();
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    if (i == 0 || us < best) best = us;
  }
  return best;
}

// The same between two events.
double best_device_us(int repeats, const Work& work) {
  work();
  cuda::synchronize();
  cuda::Event start, stop;
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    start.record();
    work();
    stop.record();
    stop.wait();
    const double us = stop.microseconds_since(start);
    if (i == 0 || us < best) best = us;
  }
  return best;
}

class Measurement {
 public:
  Measurement(Roof& roof, const RoofOptions& options) : roof_(roof), options_(options) {}

  // Stores f(), or why it failed: a kernel that a build does not have, memory that is not there.
  void value(const std::string& name, const std::function<double()>& f) {
    try {
      roof_.values[name] = f();
    } catch (const Error& e) {
      roof_.missing[name] = e.what();
    }
  }

  void gemm(const std::string& name, DType dtype, int64_t n, Math math = Math::strict) {
    value(name, [&] {
      // Not zeros: power limits make them look faster than they are.
      const auto operand = [&](uint64_t step) {
        return randn({n, n}, Rng{0, rng_stream("roof"), step}).to(dtype).to(options_.device);
      };
      const Tensor a = operand(0), b = operand(1);
      const Work work = [&] { matmul(a, b, false, false, math); };
      const double us = options_.device.is_cuda() ? best_device_us(options_.repeats, work)
                                                  : best_us(options_.repeats, work);
      const auto size = static_cast<double>(n);
      return 2 * size * size * size / us * 1e-3;
    });
  }

  void cpu(const std::string& suffix) {
    const int64_t n = options_.megabytes * (1 << 20) / 4;
    const int threads = num_threads();
    const Tensor a = Tensor::full({n}, 1.0), b = Tensor::full({n}, 2.0), c = Tensor::zeros({n});
    const float *pa = a.data<float>(), *pb = b.data<float>();
    float* pc = c.data<float>();
    const auto rate = [&](double arrays, const std::function<void(int64_t, int64_t)>& chunk) {
      const double us = best_us(options_.repeats, [&] { parallel_for(n, 1 << 12, chunk); });
      return arrays * 4 * static_cast<double>(n) / us * 1e-3;
    };
    roof_.values["copy_gbs" + suffix] = rate(2, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pc[i] = pa[i];
    });
    roof_.values["triad_gbs" + suffix] = rate(3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pc[i] = pa[i] + 0.5f * pb[i];
    });
    constexpr int64_t kSteps = 2000000;
    double flops = 0;
    const double us = best_us(options_.repeats, [&] { flops = fma_loop(threads, kSteps); });
    roof_.values["f32_fma_gflops" + suffix] = flops / us * 1e-3;
    const int64_t size = options_.gemm > 0 ? options_.gemm : 2048;
    gemm("f32_gemm_gflops" + suffix, DType::f32, size);
    gemm("bf16_gemm_gflops" + suffix, DType::bf16, size);
  }

  void gpu() {
    const size_t bytes = static_cast<size_t>(options_.megabytes) << 22;
    value("copy_gbs", [&] {
      const auto n = static_cast<int64_t>(bytes);
      const Tensor from = Tensor::zeros({n}, DType::u8, options_.device);
      const Tensor to = Tensor::zeros({n}, DType::u8, options_.device);
      const double us = best_device_us(options_.repeats,
                                       [&] { cuda::copy_on_device(to.raw(), from.raw(), bytes); });
      return 2 * static_cast<double>(bytes) / us * 1e-3;
    });
    const int64_t size = options_.gemm > 0 ? options_.gemm : 8192;
    gemm("f32_gemm_gflops", DType::f32, size);
    gemm("tf32_gemm_gflops", DType::f32, size, Math::tf32);
    gemm("bf16_gemm_gflops", DType::bf16, size);
    launches();
  }

 private:
  void launches() {
    constexpr int kLaunches = 1000;
    const Tensor x = Tensor::full({256}, 1.0, DType::f32, options_.device);
    const Work many = [&] {
      for (int i = 0; i < kLaunches; ++i) mul_(x, 1.0);
    };
    value("launch_us", [&] { return best_device_us(options_.repeats, many) / kLaunches; });
    value("launch_host_us", [&] {
      many();
      cuda::synchronize();
      double best = 0;
      for (int i = 0; i < options_.repeats; ++i) {
        const auto start = Clock::now();
        many();
        const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
        if (i == 0 || us < best) best = us;
        cuda::synchronize();
      }
      return best / kLaunches;
    });
    value("graph_launch_us", [&] {
      cuda::Graph graph;
      graph.begin();
      try {
        many();
      } catch (...) {
        graph.abandon();
        throw;
      }
      graph.end();
      return best_device_us(options_.repeats, [&] { graph.launch(); }) / kLaunches;
    });
    value("event_us", [&] { return best_device_us(options_.repeats, [] {}); });
  }

  Roof& roof_;
  const RoofOptions& options_;
};

}  // namespace

double fma_loop(int threads, int64_t steps) {
  constexpr int kChains = 12;
  parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      FloatVector acc[kChains], x = broadcast(0.999f), y = broadcast(1e-3f);
      for (int i = 0; i < kChains; ++i) acc[i] = broadcast(static_cast<float>(i));
      for (int64_t s = 0; s < steps; ++s) {
        MTCKI_UNROLL for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * x + y;
      }
      // Keeps the compiler from dropping the loop.
      for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(acc[i]) : "memory");
    }
  });
  return 2.0 * kChains * Simd<float>::width * static_cast<double>(steps) * threads;
}

Roof measure_roof(const RoofOptions& o) {
  Roof r;
  r.device = o.device.to_string();
  r.date = utc_now();
  r.version = build_info().version + " " + build_info().git;
  r.threads = num_threads();
  Measurement m(r, o);
  if (o.device.is_cuda()) {
    r.machine = cuda::device_info(o.device.index).name;
    r.libraries = cuda::library_versions();
    m.gpu();
    return r;
  }
  r.machine = machine_info().cpu;
  r.libraries = "oneDNN " + (onednn_available() ? onednn_version() : std::string("none"));
  m.cpu("");
  m.value("region_us", [&] {
    constexpr int kRegions = 1000;
    return best_us(o.repeats,
                   [&] {
                     for (int i = 0; i < kRegions; ++i)
                       parallel_for(r.threads, 1, [](int64_t, int64_t) {});
                   }) /
           kRegions;
  });
  if (r.threads > 1) {
    struct Restore {
      int threads;
      ~Restore() { set_num_threads(threads); }
    } restore{r.threads};
    set_num_threads(1);
    m.cpu("_1");
  }
  return r;
}

}  // namespace mtcki

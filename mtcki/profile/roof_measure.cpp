#include <algorithm>
#include <chrono>
#include <fstream>
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

// Least and median time of a piece of work in µs.
struct Times {
  double best = 0, median = 0;
};

Times summary(std::vector<double> us) {
  std::ranges::sort(us);
  return {us.front(), us[us.size() / 2]};
}

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Of `repeats` runs, after one that does not count.
Times times_of(int repeats, const Work& work) {
  work();
  std::vector<double> us;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    work();
    us.push_back(us_since(start));
  }
  return summary(std::move(us));
}

// The same between two events.
Times device_times_of(int repeats, const Work& work) {
  work();
  cuda::synchronize();
  cuda::Event start, stop;
  std::vector<double> us;
  for (int i = 0; i < repeats; ++i) {
    start.record();
    work();
    stop.record();
    stop.wait();
    us.push_back(stop.microseconds_since(start));
  }
  return summary(std::move(us));
}

// What one core or all share of a cache, in bytes, from Linux; 0: not known.
double cache_bytes(int index) {
  std::ifstream in(str("/sys/devices/system/cpu/cpu0/cache/index", index, "/size"));
  double size = 0;
  char unit = 0;
  if (!(in >> size >> unit)) return 0;
  return size * (unit == 'M' ? 1 << 20 : 1 << 10);
}

class Measurement {
 public:
  Measurement(Roof& roof, const RoofOptions& options) : roof_(roof), options_(options) {}

  // Stores f() turned into a value, or why it failed: a kernel that a build does not have, memory
  // that is not there.
  void value(const std::string& name, const std::function<Times()>& f,
             const std::function<double(double)>& of_us) {
    try {
      const Times t = f();
      roof_.values[name] = of_us(t.best);
      roof_.typical[name] = of_us(t.median);
    } catch (const Error& e) {
      roof_.missing[name] = e.what();
    }
    roof_.clocks.add(read_clocks(options_.device));
  }
  Times time(const Work& work) const {
    return options_.device.is_cuda() ? device_times_of(options_.repeats, work)
                                     : times_of(options_.repeats, work);
  }

  void gemm(const std::string& name, DType dtype, int64_t n, Math math = Math::strict) {
    const auto size = static_cast<double>(n);
    value(
        name,
        [&] {
          // Not zeros: power limits make them look faster than they are.
          const Tensor a = noise({n, n}).to(dtype), b = noise({n, n}).to(dtype);
          return time([&] { matmul(a, b, false, false, math); });
        },
        [&](double us) { return 2 * size * size * size / us * 1e-3; });
  }

  void cpu(const std::string& suffix) {
    const int64_t n = options_.megabytes * (1 << 20) / 4;
    const int threads = num_threads();
    const Tensor a = Tensor::full({n}, 1.0), b = Tensor::full({n}, 2.0), c = Tensor::zeros({n});
    const float *pa = a.data<float>(), *pb = b.data<float>();
    float* pc = c.data<float>();
    const auto rate = [&](const char* name, double arrays,
                          const std::function<void(int64_t, int64_t)>& chunk) {
      value(
          name + suffix, [&] { return time([&] { parallel_for(n, 1 << 12, chunk); }); },
          [&](double us) { return arrays * 4 * static_cast<double>(n) / us * 1e-3; });
    };
    rate("copy_gbs", 2, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pc[i] = pa[i];
    });
    rate("triad_gbs", 3, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pc[i] = pa[i] + 0.5f * pb[i];
    });
    // Index 1 is the cache of instructions.
    caches(suffix, {{"l1", 0}, {"l2", 2}, {"l3", 3}}, pa, pc, n);
    constexpr int64_t kSteps = 2000000;
    double flops = 0;
    value(
        "f32_fma_gflops" + suffix, [&] { return time([&] { flops = fma_loop(threads, kSteps); }); },
        [&](double us) { return flops / us * 1e-3; });
    const int64_t size = options_.gemm > 0 ? options_.gemm : 2048;
    gemm("f32_gemm_gflops" + suffix, DType::f32, size);
    gemm("bf16_gemm_gflops" + suffix, DType::bf16, size);
  }

  void gpu() {
    const auto copy = [&](const std::string& name, size_t bytes, int turns) {
      value(
          name,
          [&] {
            const Tensor from = noise({static_cast<int64_t>(bytes / 4)});
            const Tensor to = Tensor::empty(from.shape(), DType::f32, options_.device);
            return graph_times([&] {
              for (int i = 0; i < turns; ++i) cuda::copy_on_device(to.raw(), from.raw(), bytes);
            });
          },
          [&](double us) { return 2.0 * static_cast<double>(bytes) * turns / us * 1e-3; });
    };
    copy("copy_gbs", static_cast<size_t>(options_.megabytes) << 22, 1);
    const size_t l2 = cuda::device_info(options_.device.index).l2;
    copy("l2_gbs", l2 / 6 / 256 * 256, 50);  // both arrays: a third of it
    roof_.values["l2_mb"] = static_cast<double>(l2) * 1e-6;
    const int64_t size = options_.gemm > 0 ? options_.gemm : 8192;
    gemm("f32_gemm_gflops", DType::f32, size);
    gemm("tf32_gemm_gflops", DType::f32, size, Math::tf32);
    gemm("bf16_gemm_gflops", DType::bf16, size);
    launches();
  }

 private:
  Tensor noise(const Shape& shape) {
    return randn(shape, Rng{0, rng_stream("roof"), ++drawn_}).to(options_.device);
  }

  // A copy of so little that each thread's part of the cache holds it, often in one loop.
  void caches(const std::string& suffix, const std::vector<std::pair<std::string, int>>& levels,
              const float* from, float* to, int64_t most) {
    const int threads = num_threads();
    for (const auto& [name, index] : levels) {
      const double own = cache_bytes(index) / (index == 3 ? threads : 1);
      const int64_t n = std::min(static_cast<int64_t>(own / 4 / 4), most / threads);
      if (n <= 0) continue;
      const int64_t turns = std::max<int64_t>(1, (int64_t{1} << 23) / n);
      roof_.values[name + "_mb" + suffix] = own * threads * 1e-6;
      value(
          name + "_gbs" + suffix,
          [&] {
            return time([&] {
              parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
                for (int64_t t = begin; t < end; ++t)
                  for (int64_t k = 0; k < turns; ++k) {
                    for (int64_t i = t * n; i < (t + 1) * n; ++i) to[i] = from[i];
                    asm volatile("" ::: "memory");  // each turn is done
                  }
              });
            });
          },
          [&](double us) { return 8.0 * static_cast<double>(n * turns * threads) / us * 1e-3; });
    }
  }

  Times graph_times(const Work& work) {
    cuda::Graph graph;
    graph.begin();
    try {
      work();
    } catch (...) {
      graph.abandon();
      throw;
    }
    graph.end();
    return device_times_of(options_.repeats, [&] { graph.launch(); });
  }

  void launches() {
    constexpr int kLaunches = 1000;
    const Tensor x = Tensor::full({256}, 1.0, DType::f32, options_.device);
    const Work many = [&] {
      for (int i = 0; i < kLaunches; ++i) mul_(x, 1.0);
    };
    const auto each = [](double us) { return us / kLaunches; };
    value(
        "launch_us", [&] { return time(many); }, each);
    value(
        "launch_host_us",
        [&] {
          many();
          std::vector<double> us;
          for (int i = 0; i < options_.repeats; ++i) {
            cuda::synchronize();
            const auto start = Clock::now();
            many();
            us.push_back(us_since(start));
          }
          cuda::synchronize();
          return summary(std::move(us));
        },
        each);
    value(
        "graph_launch_us", [&] { return graph_times(many); }, each);
    value(
        "event_us", [&] { return time([] {}); }, [](double us) { return us; });
  }

  Roof& roof_;
  const RoofOptions& options_;
  uint64_t drawn_ = 0;
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
  Roof r{.device = o.device.to_string(),
         .date = utc_now(),
         .version = build_info().version + " " + build_info().git,
         .threads = num_threads()};
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
  constexpr int kRegions = 1000;
  m.value(
      "region_us",
      [&] {
        return m.time([&] {
          for (int i = 0; i < kRegions; ++i) parallel_for(r.threads, 1, [](int64_t, int64_t) {});
        });
      },
      [](double us) { return us / kRegions; });
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

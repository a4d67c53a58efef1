// What the step programs share: arguments, timing, the JSON line that the comparison scripts read.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/ops/conv.h"
#include "tensor/parallel.h"

namespace mtcki::bench {

struct StepArguments {
  std::string model;
  int64_t batch = 128;
  int threads = 2, steps = 5, warmup = 2;
};

inline StepArguments parse(int argc, char** argv, const std::string& default_model) {
  StepArguments a;
  a.model = default_model;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc || name.rfind("--", 0) != 0) {
      std::fprintf(stderr,
                   "usage: %s [--model %s] [--batch 128] [--threads 2] [--steps 5] [--warmup 2] "
                   "[--kernels auto|onednn|builtin]\n",
                   argv[0], default_model.c_str());
      std::exit(2);
    }
    const std::string value = argv[i + 1];
    if (name == "--model")
      a.model = value;
    else if (name == "--batch")
      a.batch = std::stoll(value);
    else if (name == "--threads")
      a.threads = std::stoi(value);
    else if (name == "--steps")
      a.steps = std::max(1, std::stoi(value));
    else if (name == "--warmup")
      a.warmup = std::stoi(value);
    else if (name == "--kernels" && value == "builtin")
      set_cpu_kernels(CpuKernels::builtin);
    else if (name == "--kernels" && value == "onednn")
      set_cpu_kernels(CpuKernels::onednn);
    else if (name != "--kernels" || value != "auto")
      throw UsageError("unknown argument " + name + " " + value);
  }
  set_num_threads(a.threads);
  return a;
}

// Resident bytes now, from /proc; 0 where there is none.
inline size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

// Runs `step` warmup + steps times and prints one line of JSON: median, least and largest ms,
// images per second, peak bytes (of the allocator, of the process, of the process above
// `resident_before`).
inline void measure(const std::string& program, const StepArguments& a, size_t resident_before,
                    const std::function<double()>& step) {
  double loss = 0;
  for (int i = 0; i < a.warmup; ++i) loss = step();
  std::vector<double> ms;
  for (int i = 0; i < a.steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    loss = step();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                     .count());
  }
  std::sort(ms.begin(), ms.end());
  const size_t n = ms.size();
  const double median = n % 2 ? ms[n / 2] : 0.5 * (ms[n / 2 - 1] + ms[n / 2]);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const size_t peak_rss = static_cast<size_t>(usage.ru_maxrss) * 1024;
  std::printf(
      "{\"program\":\"%s\",\"framework\":\"mtcki\",\"model\":\"%s\",\"batch\":%lld,\"threads\":%d,"
      "\"ms\":%.3f,\"ms_min\":%.3f,\"ms_max\":%.3f,\"img_per_s\":%.2f,\"peak_tensor_bytes\":%zu,"
      "\"peak_rss_bytes\":%zu,\"step_rss_bytes\":%zu,\"loss\":%.6g}\n",
      program.c_str(), a.model.c_str(), static_cast<long long>(a.batch), a.threads, median,
      ms.front(), ms.back(), 1e3 * static_cast<double>(a.batch) / median, memory_stats().peak,
      peak_rss, peak_rss - std::min(peak_rss, resident_before), loss);
}

}  // namespace mtcki::bench

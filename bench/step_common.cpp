#include "step_common.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mtcki/profile.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/ops/conv.h"
#include "tensor/parallel.h"

namespace mtcki::bench {

namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out{""};
  for (const char c : text) {
    if (c == ',')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

StepArguments parse(int argc, char** argv, const char* step, const char* default_model) {
  StepArguments a;
  a.workload.step = step;
  std::string model = default_model, device = "cpu";
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc || name.rfind("--", 0) != 0)
      throw UsageError(
          str("usage: ", argv[0], " [--model ", default_model,
              "] [--batch 128] [--threads 2] [--steps 5] [--warmup 2] [--device cpu|cuda] "
              "[--precision f32|tf32|bf16] [--kernels auto|onednn|builtin] [--conv auto|direct] "
              "[--autotune on|off] [--graph on|off] [--serve 0|1] [--roof FILE]"));
    const std::string value = argv[i + 1];
    if (name == "--model")
      model = value;
    else if (name == "--batch")
      a.workload.batch = std::stoll(value);
    else if (name == "--threads")
      a.threads = std::stoi(value);
    else if (name == "--steps")
      a.steps = std::max(1, std::stoi(value));
    else if (name == "--warmup")
      a.warmup = std::stoi(value);
    else if (name == "--device")
      device = value;
    else if (name == "--precision")
      a.workload.precision = nn::parse_precision(value);
    else if (name == "--conv" && (value == "auto" || value == "direct"))
      set_winograd(value == "auto");
    else if (name == "--autotune")
      set_autotune(value == "on");
    else if (name == "--graph")
      a.workload.graph = value == "on";
    else if (name == "--serve")
      a.serve = value == "1";
    else if (name == "--roof")
      a.roof = value;
    else if (name == "--kernels" && value == "builtin")
      set_cpu_kernels(CpuKernels::builtin);
    else if (name == "--kernels" && value == "onednn")
      set_cpu_kernels(CpuKernels::onednn);
    else if (name != "--kernels" || value != "auto")
      throw UsageError("unknown argument " + name + " " + value);
  }
  set_num_threads(a.threads);
  a.workload.model = model;
  a.workload.teachers = split(model);
  a.workload.device = parse_device(device);
  if (a.workload.device.is_cuda()) cuda::use_device(a.workload.device.index);
  return a;
}

// Resident bytes now, from /proc; 0 where there is none.
size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

// µs of each of n steps: a clock on the CPU, events on the GPU, which are read when all have run.
std::vector<double> times_us(const Workload& step, int n, Device device, Variable* loss) {
  std::vector<double> us;
  if (device.is_cpu()) {
    for (int i = 0; i < n; ++i) {
      const auto start = Clock::now();
      *loss = step();
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    return us;
  }
  std::vector<cuda::Event> marks(static_cast<size_t>(n) + 1);
  marks[0].record();
  for (int i = 0; i < n; ++i) {
    *loss = step();
    marks[static_cast<size_t>(i) + 1].record();
  }
  marks.back().wait();
  for (int i = 0; i < n; ++i)
    us.push_back(
        marks[static_cast<size_t>(i) + 1].microseconds_since(marks[static_cast<size_t>(i)]));
  return us;
}

std::string device_name(Device device) {
  return device.is_cuda() ? cuda::device_info(device.index).name : "cpu";
}

// Of the first step, which is never a repeated graph: its ops say what they compute and move.
double floor_us(const StepArguments& a, const Workload& step) {
  const Roof roof = read_roof(a.roof);
  profiler::start();
  step();
  profiler::stop();
  double floor = 0;
  for (const OpCost& r :
       op_costs(profiler::events(), 1, &roof, a.threads, nn::name_of(a.workload.precision)))
    floor += r.floor_us;
  return floor;
}

void serve(const StepArguments& a, const Workload& step, const nlohmann::json& hello) {
  const Device device = a.workload.device;
  std::printf("%s\n", hello.dump().c_str());
  std::fflush(stdout);
  Variable loss;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    const std::vector<double> us =
        times_us(step, std::max(1, std::atoi(line.c_str())), device, &loss);
    std::printf(
        "%s\n",
        nlohmann::json{{"us", us}, {"peak_bytes", memory_stats(device).peak}}.dump().c_str());
    std::fflush(stdout);
  }
}

void measure(const char* program, const StepArguments& a, const Workload& step,
             size_t resident_before) {
  const Device device = a.workload.device;
  Variable loss;
  std::vector<double> us = times_us(step, a.steps, device, &loss);
  std::sort(us.begin(), us.end());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const size_t peak_rss = static_cast<size_t>(usage.ru_maxrss) * 1024;
  const double ms = median(us) * 1e-3;
  std::printf(
      "{\"program\":\"%s\",\"framework\":\"mtcki\",\"model\":\"%s\",\"batch\":%lld,\"threads\":%d,"
      "\"device\":\"%s\",\"precision\":\"%s\",\"ms\":%.3f,\"ms_min\":%.3f,\"ms_max\":%.3f,"
      "\"img_per_s\":%.2f,\"peak_tensor_bytes\":%zu,\"peak_rss_bytes\":%zu,\"step_rss_bytes\":%zu,"
      "\"loss\":%.6g}\n",
      program, a.workload.model.c_str(), static_cast<long long>(a.workload.batch), a.threads,
      device.to_string().c_str(), nn::name_of(a.workload.precision), ms, us.front() * 1e-3,
      us.back() * 1e-3, 1e3 * static_cast<double>(a.workload.batch) / ms, memory_stats(device).peak,
      peak_rss, peak_rss - std::min(peak_rss, resident_before), loss.item());
}

}  // namespace

int step_main(int argc, char** argv, const char* program, const char* step,
              const char* default_model) {
  try {
    const StepArguments a = parse(argc, argv, step, default_model);
    const size_t resident_before = resident_bytes();
    const auto start = Clock::now();
    const Workload work = make_workload(a.workload);
    nlohmann::json hello{{"ready", "mtcki"}, {"device_name", device_name(a.workload.device)}};
    if (!a.roof.empty()) hello["floor_us"] = floor_us(a, work);
    Variable loss;
    times_us(work, a.warmup, a.workload.device, &loss);
    hello["warmup_s"] = std::chrono::duration<double>(Clock::now() - start).count();
    if (a.serve)
      serve(a, work, hello);
    else
      measure(program, a, work, resident_before);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
}

}  // namespace mtcki::bench

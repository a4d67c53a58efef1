// A step of mtcki/run/workload.h as bench/baseline_torch.py does it, on random 3x32x32 images, timed.
//
//   workload_step --step train --model resnet18
//   workload_step --step inversion --model resnet34,vgg11,wrn40_2 --precision bf16
//
// Prints one line of JSON: median, least and largest ms, images per second, peak bytes (of the
// allocator; of the process above what it had before). With --serve 1 it prints {"ready": ...} when
// it is warm, with the floor of the step when there is a roof, and then answers each line of input:
// a number N times N steps, {"us": [...], "peak_bytes": ..., "step_rss_bytes": ...,
// "faults_per_step": ...}; "quit" ends. bench/step_server.py is the caller.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "autograd/functions.h"
#include "mtcki/profile/profile.h"
#include "mtcki/run/workload.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/parallel.h"

namespace {

using namespace mtcki;  // NOLINT: a program, not a header

using Clock = std::chrono::steady_clock;

struct StepArguments {
  WorkloadOptions workload;
  std::vector<std::string> models{"wrn16_1"};
  std::string device = "cpu", precision = "f32", kernels = "auto", conv = "auto";
  int threads = 2, steps = 5, warmup = 2;
  bool serve = false, autotune = false;
  std::string roof;  // file; empty: none
};

void add_options(CLI::App& app, StepArguments& a) {
  WorkloadOptions& w = a.workload;
  app.add_option("--step", w.step, "what is repeated")
      ->check(CLI::IsMember(workload_steps()))
      ->capture_default_str();
  app.add_option("--model", a.models, "network; inversion, synthesis: the teachers a,b,c")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--teachers", w.teachers, "distill: the teachers a,b,c")->delimiter(',');
  app.add_option("--batch", w.batch, "images per step")->capture_default_str();
  app.add_option("--bank", w.bank, "synthesis: rows of the history bank")->capture_default_str();
  app.add_option("--device", a.device, "cpu or cuda[:INDEX]")->capture_default_str();
  app.add_option("--precision", a.precision, "f32, tf32 or bf16")->capture_default_str();
  app.add_option("--kernels", a.kernels, "CPU kernels")
      ->check(CLI::IsMember({"auto", "onednn", "builtin"}))
      ->capture_default_str();
  app.add_option("--conv", a.conv, "CPU: direct leaves Winograd out")
      ->check(CLI::IsMember({"auto", "direct"}))
      ->capture_default_str();
  app.add_flag("--autotune", a.autotune, "GPU: time the candidates for each convolution");
  app.add_flag("--recompute", w.recompute, "train: batch norm's outputs again in the backward");
  app.add_flag("--graph", w.graph, "GPU: the step captured and repeated");
  app.add_option("--threads", a.threads, "CPU threads")->capture_default_str();
  app.add_option("--steps", a.steps, "timed")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--warmup", a.warmup, "steps before")->capture_default_str();
  app.add_option("--roof", a.roof, "file of mtcki roof: prints the floor of the step");
  app.add_flag("--serve", a.serve, "stay warm and answer requests");
}

void apply(StepArguments& a) {
  WorkloadOptions& w = a.workload;
  w.model = a.models.front();
  if (w.teachers.empty()) w.teachers = a.models;
  w.device = parse_device(a.device);
  w.precision = nn::parse_precision(a.precision);
  math_settings().autotune = a.autotune;
  math_settings().winograd = a.conv == "auto";
  if (a.kernels != "auto")
    set_cpu_kernels(a.kernels == "onednn" ? CpuKernels::onednn : CpuKernels::builtin);
  set_num_threads(a.threads);
  if (w.device.is_cuda()) cuda::use_device(w.device.index);
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

rusage process_usage() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

// Peak resident bytes above what the process had before the step was made.
size_t step_rss_bytes(size_t resident_before) {
  const size_t peak = static_cast<size_t>(process_usage().ru_maxrss) * 1024;
  return peak - std::min(peak, resident_before);
}

void serve(const StepArguments& a, const Workload& step, const nlohmann::json& hello,
           size_t resident_before) {
  const Device device = a.workload.device;
  std::printf("%s\n", hello.dump().c_str());
  std::fflush(stdout);
  Variable loss;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    const int steps = std::max(1, std::atoi(line.c_str()));
    const long faults = process_usage().ru_minflt;
    const std::vector<double> us = times_us(step, steps, device, &loss);
    const nlohmann::json answer{
        {"us", us},
        {"peak_bytes", memory_stats(device).peak},
        {"step_rss_bytes", step_rss_bytes(resident_before)},
        {"faults_per_step",
         static_cast<double>(process_usage().ru_minflt - faults) / static_cast<double>(steps)}};
    std::printf("%s\n", answer.dump().c_str());
    std::fflush(stdout);
  }
}

void measure(const StepArguments& a, const Workload& step, size_t resident_before) {
  const Device device = a.workload.device;
  Variable loss;
  std::vector<double> us = times_us(step, a.steps, device, &loss);
  std::sort(us.begin(), us.end());
  const double ms = median(us) * 1e-3;
  std::printf(
      "{\"step\":\"%s\",\"framework\":\"mtcki\",\"model\":\"%s\",\"batch\":%lld,\"threads\":%d,"
      "\"device\":\"%s\",\"precision\":\"%s\",\"ms\":%.3f,\"ms_min\":%.3f,\"ms_max\":%.3f,"
      "\"img_per_s\":%.2f,\"peak_tensor_bytes\":%zu,\"step_rss_bytes\":%zu,"
      "\"loss\":%.6g}\n",
      a.workload.step.c_str(), a.workload.model.c_str(), static_cast<long long>(a.workload.batch),
      a.threads, device.to_string().c_str(), nn::name_of(a.workload.precision), ms,
      us.front() * 1e-3, us.back() * 1e-3, 1e3 * static_cast<double>(a.workload.batch) / ms,
      memory_stats(device).peak, step_rss_bytes(resident_before),
      mean(loss).item());  // inference: of the logits
}

}  // namespace

int main(int argc, char** argv) {
  mtcki::bound_waiting(argv);
  CLI::App app("one step of the framework, timed");
  StepArguments a;
  add_options(app, a);
  CLI11_PARSE(app, argc, argv);
  try {
    apply(a);
    const size_t resident_before = resident_bytes();
    const auto start = Clock::now();
    const Workload work = make_workload(a.workload);
    nlohmann::json hello{{"ready", "mtcki"}, {"device_name", device_name(a.workload.device)}};
    if (!a.roof.empty()) hello["floor_us"] = floor_us(a, work);
    Variable loss;
    const int capture = a.workload.graph ? StepGraph::kWarmup + 1 : 0;
    times_us(work, std::max(a.warmup, capture), a.workload.device, &loss);
    hello["warmup_s"] = std::chrono::duration<double>(Clock::now() - start).count();
    if (a.serve)
      serve(a, work, hello, resident_before);
    else
      measure(a, work, resident_before);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
}

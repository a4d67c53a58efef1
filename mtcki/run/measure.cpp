#include "mtcki/run/measure.h"

#include <chrono>
#include <cmath>

#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "tensor/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

int64_t warm_up_steps(const WorkloadOptions& w) { return w.graph ? StepGraph::kWarmup + 1 : 3; }

void set_plain_times(const std::vector<double>& us, Profile* p) {
  p->step_us = median(us);
  p->step_p10_us = quantile(us, 0.1);
  p->step_p90_us = quantile(us, 0.9);
}

Profile heading(const MeasureOptions& o) {
  const WorkloadOptions& w = o.workload;
  Profile p;
  p.step = w.step;
  for (const std::string& t : w.teachers) p.model += (p.model.empty() ? "" : ",") + t;
  if (p.model.empty() || w.step == "distill")
    p.model = p.model.empty() ? w.model : str(p.model, " -> ", w.model);
  p.device = w.device.to_string();
  p.machine = w.device.is_cuda() ? cuda::device_info(w.device.index).name : machine_info().cpu;
  p.math = nn::name_of(w.precision);
  p.version = str(build_info().version, " ", build_info().git);
  p.date = utc_now();
  p.batch = w.batch;
  p.steps = o.steps;
  p.threads = num_threads();
  if (o.roof) {
    p.roof = *o.roof;
    p.roof_date = o.roof->date;
  }
  return p;
}

// The step whose time is nearest to the median.
int64_t typical_step(const std::vector<double>& us) {
  const double middle = median(us);
  size_t best = 0;
  for (size_t i = 1; i < us.size(); ++i)
    if (std::abs(us[i] - middle) < std::abs(us[best] - middle)) best = i;
  return static_cast<int64_t>(best);
}

// "wrn16_1" at 4: "wrn16_4"; "resnet18": "resnet18_w4".
std::string with_width(const std::string& model, int64_t width) {
  if (model.starts_with("wrn")) return str(model.substr(0, model.rfind('_') + 1), width);
  if (model.find("_w") != std::string::npos)
    throw UsageError(str("--sweep width: \"", model, "\" has a width already"));
  size_t end = model.size();
  for (const std::string last : {"_pool", "_in"})
    if (model.ends_with(last)) end = model.size() - last.size();
  return str(model.substr(0, end), "_w", width, model.substr(end));
}

}  // namespace

std::vector<double> step_times_us(const Workload& step, int64_t steps, Device device,
                                  ClockRange* clocks) {
  using Clock = std::chrono::steady_clock;
  const auto look = [&] {
    if (clocks) clocks->add(read_clocks(device));
  };
  std::vector<double> times;
  if (device.is_cuda()) {
    std::vector<cuda::Event> ends(static_cast<size_t>(steps) + 1);
    cuda::synchronize();
    ends[0].record();
    for (int64_t i = 0; i < steps; ++i) {
      profiler::set_step(i);
      step();
      ends[static_cast<size_t>(i) + 1].record();
    }
    look();  // while the GPU still works
    cuda::synchronize();
    for (size_t i = 1; i < ends.size(); ++i)
      times.push_back(ends[i].microseconds_since(ends[i - 1]));
    return times;
  }
  look();
  for (int64_t i = 0; i < steps; ++i) {
    profiler::set_step(i);
    const auto start = Clock::now();
    step();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  look();
  return times;
}

Measured measure(MeasureOptions o) {
  WorkloadOptions& w = o.workload;
  const Device device = w.device;
  const bool open = o.level == "auto";
  if (open) {
    o.level = device.is_cuda() ? "kernels" : "ops";
    w.graph = w.graph || device.is_cuda();
  }
  Measured m;
  Profile& p = m.profile = heading(o);
  if (o.level == "kernels") {  // records of kernels cannot be left out later
    const Workload plain = make_workload(w);
    step_times_us(plain, warm_up_steps(w), device);
    set_plain_times(step_times_us(plain, o.steps, device, &p.clocks), &p);
    // Before the warm-up, so that graphs captured there are known.
    if (const std::string why = profiler::start_kernels(); !why.empty()) {
      if (!open) throw DeviceError("--level kernels: " + why);
      console::info("no kernels are recorded (" + why +
                    "): the times are those of single ops, of small ones the time to issue them");
      o.level = "ops";
      w.graph = false;
    }
  }
  const bool kernels = o.level == "kernels";
  p.level = o.level;
  p.warmup = warm_up_steps(w);
  const Workload step = make_workload(w);
  // Scopes are named while the graph is captured, in the last of these steps.
  if (w.graph) profiler::start();
  step_times_us(step, p.warmup, device);
  // Once without the profiler, so that its own cost shows.
  if (!kernels) set_plain_times(step_times_us(step, o.steps, device, &p.clocks), &p);
  reset_peak_memory(device);
  if (!w.graph) profiler::start();
  if (kernels) profiler::clear_kernels();
  const std::vector<double> profiled = step_times_us(step, o.steps, device, &p.clocks);
  p.profiled_us = median(profiled);
  profiler::stop();
  m.events = profiler::events();
  std::vector<profiler::Share> shares;
  if (kernels) {
    const std::vector<cuda::Activity> records = profiler::stop_kernels();
    m.kernels = profiler::timeline(m.events, records);
    m.events = profiler::attribute(m.events, records, &shares);
  }
  p.peak_memory = memory_stats(device).peak;
  p.rows = op_costs(m.events, o.steps, o.roof, num_threads(), p.math, shares);
  p.timeline = timeline_of(m.events, typical_step(profiled));
  return m;
}

Sweep measure_sweep(const MeasureOptions& options, const SweepRange& range) {
  Sweep sweep;
  sweep.what = range.what;
  const int threads = num_threads();
  for (const int64_t value : range.values) {
    MeasureOptions o = options;
    if (range.what == "batch") o.workload.batch = value;
    if (range.what == "width") o.workload.model = with_width(options.workload.model, value);
    if (range.what == "threads") set_num_threads(static_cast<int>(value));
    SweepPoint point{value, {}, ""};
    try {
      point.profile = measure(o).profile;
      point.profile.timeline.clear();
    } catch (const OutOfMemoryError& e) {
      point.failed = e.what();
    }
    sweep.points.push_back(std::move(point));
    if (!sweep.points.back().failed.empty()) break;
    console::info(
        str(range.what, " ", value, ": ", sweep.points.back().profile.step_us * 1e-3, " ms"));
  }
  set_num_threads(threads);
  return sweep;
}

}  // namespace mtcki

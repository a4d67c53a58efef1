#include <algorithm>
#include <map>
#include <set>

#include "mtcki/profile/table.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

using nlohmann::json;

// Processes of the trace: 1 is the host, then devices as they appear.
class Processes {
 public:
  int of(const std::string& device) {
    return number_.emplace(device, static_cast<int>(number_.size()) + 1).first->second;
  }
  const std::map<std::string, int>& all() const { return number_; }

 private:
  std::map<std::string, int> number_{{"cpu", 1}};
};

// A track for each stream, and more where work overlaps; calls of the host, with arrows.
void add_kernels(const std::vector<profiler::Slice>& kernels, Processes& processes, json* out) {
  constexpr int kLanes = 100, kCalls = 9999;
  const int gpu = processes.of("GPU");
  std::set<int> tracks;
  for (const profiler::Slice& s : kernels) {
    const bool call = s.kind == profiler::Slice::Kind::call;
    const int pid = call ? 1 : gpu, tid = call ? kCalls : s.stream * kLanes + s.lane;
    if (tracks.insert(tid).second)
      out->push_back({{"name", "thread_name"},
                      {"ph", "M"},
                      {"pid", pid},
                      {"tid", tid},
                      {"args",
                       {{"name", call     ? std::string("CUDA calls")
                                 : s.lane ? str("stream ", s.stream, ", beside")
                                          : str("stream ", s.stream)}}}});
    out->push_back({{"name", s.name},
                    {"cat", call         ? "launch"
                            : s.backward ? "backward"
                                         : "forward"},
                    {"ph", "X"},
                    {"pid", pid},
                    {"tid", tid},
                    {"ts", s.start_us},
                    {"dur", s.us},
                    {"args", {{"module", s.module}, {"launch", s.shape}}}});
    if (s.launch == 0) continue;
    json arrow{{"name", "launch"}, {"cat", "launch"}, {"id", s.launch},  {"ph", call ? "s" : "f"},
               {"pid", pid},       {"tid", tid},      {"ts", s.start_us}};
    if (!call) arrow["bp"] = "e";
    out->push_back(std::move(arrow));
  }
}

// A track of the host with a bar for each step, and below it one for each stretch of a stage; the
// names of its threads.
void add_steps(const std::vector<profiler::Event>& events, json* out) {
  constexpr int kSteps = 9998;
  struct Bar {
    int64_t step;
    std::string name;
    double begin, end;
  };
  std::vector<Bar> steps, stages;
  std::map<int, std::string> tracks;
  for (const profiler::Event& e : events) {
    const bool on_host = e.device == "cpu";
    const double begin = on_host ? e.start_us : e.host_start_us;
    const double end = begin + (on_host ? e.duration_us : e.host_us);
    if (e.captured || e.step == profiler::kAnyStep) continue;
    tracks[e.thread] = str("thread ", e.thread), tracks[kSteps] = "steps and stages";
    for (auto* bars : {&steps, &stages}) {
      const std::string name = bars == &steps ? str("step ", e.step) : e.stage;
      if (bars->empty() || bars->back().step != e.step || bars->back().name != name)
        bars->push_back({e.step, name, begin, end});
      bars->back().begin = std::min(bars->back().begin, begin);
      bars->back().end = std::max(bars->back().end, end);
    }
  }
  for (const auto* bars : {&steps, &stages})
    for (const Bar& b : *bars)
      out->push_back({{"name", b.name},
                      {"cat", "step"},
                      {"ph", "X"},
                      {"pid", 1},
                      {"tid", kSteps},
                      {"ts", b.begin},
                      {"dur", b.end - b.begin}});
  for (const auto& [tid, name] : tracks)
    out->push_back({{"name", "thread_name"},
                    {"ph", "M"},
                    {"pid", 1},
                    {"tid", tid},
                    {"args", {{"name", name}}}});
}

}  // namespace

std::string chrome_trace(const std::vector<profiler::Event>& events,
                         const std::vector<profiler::Slice>& kernels) {
  Processes processes;
  json out = json::array();
  if (!kernels.empty()) add_kernels(kernels, processes, &out);
  for (const profiler::Event& e : events) {
    if (e.captured || (!kernels.empty() && e.device != "cpu")) continue;
    const int pid = processes.of(e.device);
    const bool on_host = e.device == "cpu";
    const char* const category = e.backward ? "backward" : "forward";
    out.push_back({{"name", e.op},
                   {"cat", category},
                   {"ph", "X"},
                   {"pid", pid},
                   {"tid", on_host ? e.thread : e.stream},
                   {"ts", e.start_us},
                   {"dur", e.duration_us},
                   {"args",
                    {{"module", e.module},
                     {"stage", e.stage},
                     {"step", e.step},
                     {"shape", e.shape},
                     {"dtype", e.dtype},
                     {"layout", e.layout},
                     {"kernel", e.note},
                     {"GFLOP/s", e.duration_us > 0 ? e.flops / e.duration_us * 1e-3 : 0.0},
                     {"GB/s", e.duration_us > 0 ? e.bytes / e.duration_us * 1e-3 : 0.0}}}});
    out.push_back({{"name", "memory"},
                   {"ph", "C"},
                   {"pid", pid},
                   {"ts", e.start_us + e.duration_us},
                   {"args", {{"bytes", e.memory}}}});
    if (on_host || e.host_us <= 0) continue;
    out.push_back({{"name", e.op},
                   {"cat", category},
                   {"ph", "X"},
                   {"pid", 1},
                   {"tid", e.thread},
                   {"ts", e.host_start_us},
                   {"dur", e.host_us},
                   {"args", {{"module", e.module}, {"stage", e.stage}, {"step", e.step}}}});
    json launch = {{"name", "launch"}, {"cat", "launch"}, {"id", e.id}};
    launch.update({{"ph", "s"}, {"pid", 1}, {"tid", e.thread}, {"ts", e.host_start_us}});
    out.push_back(launch);
    launch.update({{"ph", "f"}, {"bp", "e"}, {"pid", pid}, {"tid", e.stream}, {"ts", e.start_us}});
    out.push_back(launch);
  }
  if (kernels.empty()) add_steps(events, &out);
  for (const auto& [device, pid] : processes.all())
    out.push_back({{"name", "process_name"},
                   {"ph", "M"},
                   {"pid", pid},
                   {"args", {{"name", device == "cpu" ? "host" : device}}}});
  // One event a line: such files get large, and are looked into with other tools too.
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (size_t i = 0; i < out.size(); ++i)
    text += (i ? ",\n" : "") + out[i].dump(-1, ' ', false, json::error_handler_t::replace);
  return text + "\n]}\n";
}

}  // namespace mtcki

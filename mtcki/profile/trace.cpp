#include <map>
#include <set>

#include "mtcki/profile/table.h"

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

}  // namespace

std::string chrome_trace(const std::vector<profiler::Event>& events) {
  Processes processes;
  json out = json::array();
  for (const profiler::Event& e : events) {
    if (e.captured) continue;
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

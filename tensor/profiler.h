// Cost of every op. Each op opens one scope that knows its FLOPs and bytes; off, that costs one
// relaxed load. Self time excludes nested scopes.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace mtcki {

namespace profiler {
inline std::atomic<bool> enabled{false};

struct Event {
  std::string op, module, stage, shape;
  bool backward = false;
  double start_us = 0, duration_us = 0, self_us = 0;
  double flops = 0, bytes = 0;
  int thread = 0;
};

void start();  // clears what was recorded
void stop();
std::vector<Event> events();
}  // namespace profiler

class ProfileScope {
 public:
  // flops: multiply and add count as two. bytes: read plus written, each tensor once.
  ProfileScope(const char* op, double flops, double bytes)
      : active_(profiler::enabled.load(std::memory_order_relaxed)) {
    if (active_) begin(op, flops, bytes);
  }
  ~ProfileScope() {
    if (active_) end();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;
  // Which kernel was chosen, shapes: shown in the trace. Called only when active().
  bool active() const { return active_; }
  void note(const std::string& text);

 private:
  void begin(const char* op, double flops, double bytes);
  void end();
  bool active_;
};

// Set by the engine while backward closures run, so that events say so.
struct BackwardScope {
  BackwardScope();
  ~BackwardScope();
};

}  // namespace mtcki

// Cost of every op. Each op opens one scope that knows its FLOPs and bytes; off, that costs one
// relaxed load. Self time excludes nested scopes.
//
// On the CPU a scope reads the clock. On a GPU it records a pair of cuda::Event from a pool and
// does not wait: the times are read when events() is called. While a CUDA graph is captured nothing
// runs, so scopes record that they were there, without a time; what replays cost comes from
// profiler_activity.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace mtcki {

class Tensor;

// Bytes that an op reads plus writes, each tensor once, and the tensor that tells a profile where
// the op runs and on what: the first one. It must outlive the expression only.
struct Traffic {
  double bytes = 0;
  const Tensor* operand = nullptr;
  Traffic(double b = 0, const Tensor* t = nullptr) : bytes(b), operand(t) {}  // NOLINT: from bytes
};
inline Traffic operator+(const Traffic& a, const Traffic& b) {
  return {a.bytes + b.bytes, a.operand ? a.operand : b.operand};
}
inline Traffic operator*(double n, const Traffic& t) { return {n * t.bytes, t.operand}; }

namespace profiler {

constexpr int64_t kAnyStep = -1;

struct Event {
  std::string op, module, stage;
  std::string shape, dtype, layout;  // of the first operand, "[128, 64, 32, 32]"; empty: unknown
  std::string note;                  // which kernel was chosen, and its problem
  std::string device = "cpu";        // or "cuda:0"
  int stream = 0, thread = 0;        // CUDA stream index, host thread
  bool backward = false;
  bool captured = false;        // seen while a graph was captured: no time
  int64_t id = 0, parent = -1;  // of this scope, of the one around it on the same thread
  int64_t step = 0;             // set_step(); kAnyStep: which one is not known
  double start_us = 0, duration_us = 0, self_us = 0;  // on the device
  double host_start_us = 0, host_us = 0;              // of the host; host_us excludes nested scopes
  double flops = 0, bytes = 0;
  size_t memory = 0;  // bytes in use on the device afterwards
};

void start();  // clears what was recorded; waits for the GPU when one is in use
void stop();
void set_step(int64_t step);  // what events from now on carry
// What was recorded, in the order in which scopes ended. Waits for the GPU.
std::vector<Event> events();

// Events that were made for the pool so far. A second step of the same length makes no new ones.
size_t device_events_made();

// What scopes do, as bits of `listening`. Ranges are on for the whole process or not at all
// (tensor/cuda/ranges.h); activity ids belong to profiler_activity.h.
enum Listening : int { kRecord = 1, kRanges = 2, kActivity = 4 };
inline std::atomic<int> listening{0};

}  // namespace profiler

class ProfileScope {
 public:
  // flops: multiply and add count as two.
  ProfileScope(const char* op, double flops, const Traffic& traffic)
      : listening_(profiler::listening.load(std::memory_order_relaxed)) {
    if (listening_) begin(op, flops, traffic);
  }
  ~ProfileScope() {
    if (listening_) end();
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;
  // Which kernel was chosen, problem sizes: shown in tables and traces. Called only when active().
  bool active() const { return listening_ & profiler::kRecord; }
  void note(const std::string& text);

 private:
  void begin(const char* op, double flops, const Traffic& traffic);
  void end();
  int listening_;
};

// Set by the engine while backward closures run, so that events say so.
struct BackwardScope {
  BackwardScope();
  ~BackwardScope();
};

}  // namespace mtcki

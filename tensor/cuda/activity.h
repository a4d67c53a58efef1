// What the GPU did, kernel by kernel, as CUPTI records it. libcupti is loaded when it is first
// asked for, so programs start without it. The records are plain data: profiler_activity.h makes
// sense of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mtcki::cuda {

struct Activity {
  enum class Kind {
    kernel,
    copy,
    fill,
    correlation,  // the API call `correlation` was made while `op` was the innermost id
    node,         // the graph node `graph_node` was made while `op` was the innermost id
    call,         // the API call `correlation` itself, on the host
    clock,        // the activity clock showed start_us when profiler::host_now_us() was end_us
  };
  Kind kind = Kind::kernel;
  std::string name;                 // of a kernel or call
  std::string shape;                // of a kernel: "132x1x1 of 256 threads, 64 registers, 48 KiB"
  double start_us = 0, end_us = 0;  // on the activity clock
  int stream = 0;
  uint32_t correlation = 0;  // one for each API call; a graph launch gives all its kernels the same
  uint64_t graph_node = 0;   // 0: not part of a graph
  int64_t op = -1;
  double bytes = 0;  // copied or filled
};

// Starts recording. Empty, or why it is not possible: one line.
std::string start_activity();
// Waits for the GPU, stops recording and returns what was recorded, in no particular order.
std::vector<Activity> stop_activity();
// Forgets what ran so far; which op made which graph node stays known.
void clear_activity();
double activity_now_us();  // the clock of the records

// What this thread does from now on belongs to this id (of a profiler scope), until pop.
void push_activity_id(int64_t id);
void pop_activity_id();

}  // namespace mtcki::cuda

// What the step programs share: arguments, timing, the JSON lines that the comparison scripts read.
#pragma once

#include "mtcki/workload.h"

namespace mtcki::bench {

struct StepArguments {
  WorkloadOptions workload;
  int threads = 2, steps = 5, warmup = 2;
  bool serve = false;
  std::string roof;  // file; empty: none
};

// What main() of a step program does. `step` is "train" or "inversion"; --model names the network
// or the teachers (a,b,c).
//
// Prints one line of JSON: median, least and largest ms, images per second, peak bytes (of the
// allocator, of the process, of the process above what it had before). With --serve 1 it prints
// {"ready": ...} when it is warm, with the floor of the step when there is a roof, and then answers
// each line of input: a number N times N steps, {"us": [...], "peak_bytes": ...}; "quit" ends.
int step_main(int argc, char** argv, const char* program, const char* step,
              const char* default_model);

}  // namespace mtcki::bench

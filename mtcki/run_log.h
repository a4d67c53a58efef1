// What a run tells: metrics.jsonl (the source of truth), TensorBoard events, images, the progress line,
// warnings. And the stop flag that SIGINT/SIGTERM set.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

using Values = std::vector<std::pair<std::string, double>>;

class RunLog {
 public:
  RunLog();  // silent: for tests and library use
  // folder: where metrics.jsonl, events and samples/ go. tensorboard: write event files.
  RunLog(const std::string& folder, bool tensorboard);
  ~RunLog();

  // One line of metrics.jsonl and one TensorBoard scalar per value. kind: train | eval | event.
  void metrics(const std::string& stage, int64_t step, double epoch, const std::string& kind,
               const Values& values);
  // PNG grid of u8 or [0,1] f32 images in samples/<stage>-<step>.png, and into the events.
  void images(const std::string& stage, int64_t step, const Tensor& images, int64_t columns = 0);
  // Progress: a bar with ETA on a terminal, a plain line every few seconds elsewhere.
  void progress(const std::string& stage, int64_t done, int64_t total, double images_per_second,
                const Values& values);
  void end_progress();
  void info(const std::string& text);
  void warn(const std::string& text);

  // After a kill: forget metrics lines of `stage` with step > `step` (they will be written again).
  void rewind(const std::string& stage, int64_t step);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Set by SIGINT/SIGTERM (second SIGINT leaves at once). Stages poll it after every step, save, and
// throw Stopped.
void install_signal_handlers();
int stop_signal();  // 0, or the signal number
struct Stopped {
  int signal;  // exit code 128 + signal
};

}  // namespace mtcki

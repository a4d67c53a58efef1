// What a run tells: metrics.jsonl (the source of truth), TensorBoard events, images, the progress
// line, warnings.
//
//   metrics.jsonl:
//   {"t":UNIX,"stage":"student/vgg8","step":40,"epoch":1.5,"kind":"train","values":{"loss":0.3}}
// one write per line, so that a kill tears at most the last line; NaN and infinities are strings.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

class StageProfiles;

using Values = std::vector<std::pair<std::string, double>>;

class RunLog {
 public:
  RunLog();  // silent: for tests and library use
  // folder: where metrics.jsonl, events/<stage>/ and samples/ go; created when missing. A torn last
  // line of an earlier process is cut off. tensorboard: write event files.
  RunLog(const std::string& folder, bool tensorboard);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  // One line of metrics.jsonl and one TensorBoard scalar per value. kind: train | eval, or summary
  // for numbers of the whole run, which are no curves and not in TensorBoard. Warns of a contrast
  // that stays at chance (chance_watch.h).
  // DiskError when it cannot be written.
  void metrics(const std::string& stage, int64_t step, double epoch, const std::string& kind,
               const Values& values);
  // PNG grid of u8 or [0,1] f32 images [N,C,H,W] (C 1 or 3) in samples/<stage>-<step>.png, and into
  // the events; step: of the optimiser, as for metrics(). columns 0: nearly square.
  void images(const std::string& stage, int64_t step, const Tensor& images, int64_t columns = 0);
  // Progress: a bar with ETA on a terminal, a plain line every few seconds elsewhere. Values named
  // "top1"/"acc" are percent.
  void progress(const std::string& stage, int64_t done, int64_t total, double images_per_second,
                const Values& values);
  void end_progress();
  void info(const std::string& text);
  void warn(const std::string& text);
  const std::vector<std::string>& warnings() const;

  // Called after every evaluation and picture, at most once in five seconds: for what shows the run
  // while it is under way.
  void on_news(std::function<void()> show);

  // From now on the first `steps` steps of each stage are profiled into the folder's profile/.
  // math: f32, tf32 or bf16, for the roof.
  void profile_stages(int64_t steps, Device device, const std::string& math);
  StageProfiles* profiles();  // null: none are

  // After a kill: forget metrics lines of `stage` with step > `step` (they will be written again).
  void rewind(const std::string& stage, int64_t step);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mtcki

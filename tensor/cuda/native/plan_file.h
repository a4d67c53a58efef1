// Internal to the native device: the file that keeps tuned plans of convolutions between runs.
//
//   {"format": 1, "plans": {KEY: {"engine": 67, "knobs": [[0, 1], ...], "workspace": 0,
//   "us": 12.5}}}
//
// KEY names the convolution, the rules of the choice, the board, its driver and the version of cuDNN
// (plan_key).
#pragma once

#include <map>
#include <optional>
#include <string>

#include "tensor/cuda/native/conv_engine.h"

namespace mtcki::cuda {

struct Gpu {
  int major = 0, minor = 0, multiprocessors = 0;
  std::string name = {};  // boards of the same chip differ in memory and clocks
  int driver = 0;         // the newest CUDA version that it knows: 13000
};
std::string plan_key(const Convolution& c, const Gpu& gpu);

struct StoredPlan {
  EngineChoice choice;
  int64_t workspace = 0;    // bytes
  double microseconds = 0;  // when it was chosen
};

class PlanFile {
 public:
  // By MTCKI_PLAN_CACHE, else in the user's cache folder; empty: no file.
  static std::string default_path();
  // Reads it. A file that is not one of plans is left alone, with one warning.
  explicit PlanFile(std::string path);
  std::optional<StoredPlan> find(const std::string& key) const;
  // Adds to what the file holds by now (another process may have written), and replaces it at once.
  void put(const std::string& key, const StoredPlan& plan);

 private:
  std::string path_;
  bool foreign_ = false;  // something else is there: not to be overwritten
  std::map<std::string, StoredPlan> plans_;
};

}  // namespace mtcki::cuda

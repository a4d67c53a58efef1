// The folder of a run: one writer at a time, the resolved configuration, the manifest, result.json.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/run/result.h"

namespace mtcki {

class RunFolder {
 public:
  // OUT/NAME of the configuration: created, locked (UsageError naming the process that holds it),
  // and with `fresh` emptied of what a run writes (what else lies there is named in a warning).
  // UsageError before anything is touched: the folder holds something and is not a run's. Writes
  // manifest.json and config.toml; UsageError before that when the folder holds a stage that was
  // begun or finished under another configuration.
  RunFolder(const RunConfig& config, const std::vector<std::string>& argv, bool fresh);
  ~RunFolder();  // releases the lock
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  static std::string path_of(const RunConfig& config);  // OUT/NAME
  // result.json, as the whole main job leaves it; returns what was written. Peaks are the largest
  // of all attempts that ended by themselves; when nothing had to be done again, the times stay
  // too.
  nlohmann::json write_result(const PipelineResult& result);
  // Closes the manifest's last attempt: "finished", "stopped", or the text of an error.
  void finish(const std::string& status, int exit_code, const std::vector<std::string>& warnings);

 private:
  void write_manifest();
  std::string path_;
  int lock_ = -1;
  nlohmann::json manifest_;
};

// {"teachers":[{"name","model","top1",...}],"students":[{"name","model","top1","top1_best",...}],
//  "synthetic":{"images"},"metrics":{...},"seconds":{...}}; percent. What was not measured is left
//  out; "note" then says why.
nlohmann::json to_json(const PipelineResult& result);
// The table that `mtcki run` prints at the end.
std::string result_table(const nlohmann::json& result);

}  // namespace mtcki

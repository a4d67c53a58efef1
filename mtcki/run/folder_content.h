// What lies in the folder of a run and what does not: the names that a run writes.
#pragma once

#include <string>
#include <vector>

namespace mtcki {

// Whether a run writes a file of this name (relative to its folder, e.g.
// "students/pupil/ckpt/step-00000004/state.json").
bool is_written_by_run(const std::string& relative_path);

// Throws UsageError unless `path` is the folder of a run, holds nothing, or is not there: a folder
// with anything else is somebody's own. DataError when the run's manifest.json is damaged.
void require_run_folder(const std::string& path);

// Removes what a run writes, but for the lock. What else lies there stays, and so does every run in
// a folder below; both are returned, relative to `path`, as far as they lie deepest.
std::vector<std::string> empty_run_folder(const std::string& path);

// Removes temporary files of processes that died while writing; whoever holds the lock is the only
// writer.
void remove_temporaries(const std::string& path);

}  // namespace mtcki

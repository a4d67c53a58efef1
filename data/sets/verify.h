// What files a set consists of, whether they are there and whole, and how to get them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mtcki::data {

// One file of a set, relative to its folder. bytes < 0, md5 "": not known.
struct DataFile {
  std::string path;
  int64_t bytes = -1;
  std::string md5;
};

// One file to download; `unpack`: how it becomes the files of the set.
struct DataDownload {
  DataFile file;
  std::vector<std::string> urls;  // tried in this order
  enum class Unpack { none, tar, zip } unpack = Unpack::none;
};

enum class FileStatus {
  ok,       // size and md5 are right, or the size is and no md5 is published
  warning,  // the size is right, the md5 is not: loads, but it is not the official file
  bad_size,
  missing
};
const char* name_of(FileStatus status);  // "ok" "differs" "wrong size" "missing"

struct VerifyRow {
  DataFile expected;
  int64_t actual_bytes = -1;  // -1: missing
  std::string actual_md5;     // "": missing, or no md5 to compare with
  FileStatus status = FileStatus::ok;
  std::string note;
};

struct VerifyReport {
  std::string dataset, dir;
  std::vector<VerifyRow> rows;
  bool usable = false;  // every row ok or warning
  std::string repair;   // the command that repairs it; "" when usable
};

// Files of a set as it lies in `dir` (the default place when empty); for CIFAR the form that is there.
// Sets without files (synth10) and image folders have no rows. UsageError: unknown set.
VerifyReport verify_dataset(const std::string& name, const std::string& dir = "");
// Files of the part "train" or "test" that are not there; nothing is read.
std::vector<std::string> missing_files(const std::string& name, const std::string& dir,
                                       const std::string& split);
// Whether the set's files are in its default place, by their names; always for sets without files.
bool dataset_found(const std::string& name);

// Downloads what is missing or damaged with curl, verifies, unpacks with tar or its own ZIP reader.
// `say` receives one line per step. DataError: no network (which host, what to copy by hand), wrong
// checksum. UsageError for sets that cannot be downloaded. dir as for verify_dataset.
void fetch_dataset(const std::string& name, const std::string& dir,
                   const std::function<void(const std::string&)>& say);

}  // namespace mtcki::data

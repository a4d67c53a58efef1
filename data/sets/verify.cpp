#include "data/sets/verify.h"

#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/digest.h"
#include "data/sets/rows.h"
#include "tensor/error.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

std::vector<DataFile> expected_files(const std::string& name, const std::string& dir) {
  const DatasetRow& row = dataset_row(name);
  return row.files ? row.files(dir) : std::vector<DataFile>();
}

VerifyRow check(const DataFile& file, const std::string& dir) {
  VerifyRow row;
  row.expected = file;
  const std::string path = dir + "/" + file.path;
  if (!file_exists(path)) {
    row.status = FileStatus::missing;
    return row;
  }
  row.actual_bytes = static_cast<int64_t>(fs::file_size(path));
  if (!file.md5.empty()) row.actual_md5 = md5_file(path);
  if (file.bytes >= 0 && row.actual_bytes != file.bytes) {
    row.status = FileStatus::bad_size;
    const MappedFile content(path);
    row.note = recognise(content.bytes());
    return row;
  }
  if (!file.md5.empty() && row.actual_md5 != file.md5) {
    row.status = FileStatus::warning;
    row.note = "not the official file; it may still load";
  } else if (file.md5.empty()) {
    row.note = "no md5 is published for this file";
  }
  return row;
}

}  // namespace

const char* name_of(FileStatus status) {
  switch (status) {
    case FileStatus::ok:
      return "ok";
    case FileStatus::warning:
      return "differs";
    case FileStatus::bad_size:
      return "wrong size";
    case FileStatus::missing:
      return "missing";
  }
  return "";
}

VerifyReport verify_dataset(const std::string& name, const std::string& dir) {
  const DatasetRow& set = dataset_row(name);
  VerifyReport report;
  report.dataset = name;
  report.dir = dir.empty() ? dataset_default_dir(name) : dir;
  report.usable = true;
  for (const DataFile& file : expected_files(name, report.dir)) {
    report.rows.push_back(check(file, report.dir));
    const FileStatus s = report.rows.back().status;
    report.usable = report.usable && (s == FileStatus::ok || s == FileStatus::warning);
  }
  // A downloaded archive that still lies there is checked too, but nobody needs it.
  for (const DataDownload& d : set.downloads)
    if (d.unpack != DataDownload::Unpack::none && file_exists(report.dir + "/" + d.file.path))
      report.rows.push_back(check(d.file, report.dir));
  if (set.downloads.empty() && !set.info.procedural) {
    report.usable = fs::is_directory(report.dir);
    if (!report.usable)
      report.repair = "mkdir -p " + report.dir + "/train/<class> (and put images there)";
  } else if (!report.usable) {
    report.repair = "mtcki data get " + name + (dir.empty() ? "" : " --data-dir " + dir);
  }
  return report;
}

std::vector<std::string> missing_files(const std::string& name, const std::string& dir,
                                       const std::string& split) {
  std::vector<std::string> missing;
  for (const DataFile& file : expected_files(name, dir))
    if (is_training_file(file.path) == (split == "train") && !file_exists(dir + "/" + file.path))
      missing.push_back(file.path);
  return missing;
}

bool dataset_found(const std::string& name) {
  const std::string dir = dataset_default_dir(name);
  std::error_code ec;
  return dataset_row(name).info.procedural ||
         (fs::is_directory(dir, ec) && missing_files(name, dir, "train").empty() &&
          missing_files(name, dir, "test").empty());
}

bool is_training_file(const std::string& path) {
  const std::string leaf = fs::path(path).filename().string();
  return leaf.starts_with("train") || leaf.starts_with("data_batch");
}

}  // namespace mtcki::data

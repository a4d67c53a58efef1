#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "data/formats/zip.h"
#include "data/sets/digest.h"
#include "data/sets/rows.h"

extern char** environ;

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

// Runs a program without a shell; its exit code, or 127 when it is not installed.
int run_program(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ);
  if (error == ENOENT) return 127;
  if (error != 0) throw Error(str("cannot start ", command[0], ": ", std::strerror(error)));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) throw Error(str("waiting for ", command[0], ": ", std::strerror(errno)));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string host_of(const std::string& url) {
  const size_t from = url.find("://");
  if (from == std::string::npos) return url;
  return url.substr(from + 3, url.find('/', from + 3) - from - 3);
}

// What curl's exit code means to somebody who wants the file.
std::string curl_problem(int code, const std::string& url) {
  switch (code) {
    case 5:
    case 6:
      return "no network: " + host_of(url) + " cannot be resolved";
    case 7:
      return "no network: no connection to " + host_of(url);
    case 22:
      return host_of(url) + " does not have the file any more (HTTP error)";
    case 28:
      return "no answer from " + host_of(url);
    case 35:
    case 60:
      return "no secure connection to " + host_of(url);
    case 127:
      return "curl is not installed (apt install curl)";
    default:
      return str("curl ended with code ", code, " for ", url);
  }
}

void download(const DataDownload& d, const std::string& dir,
              const std::function<void(const std::string&)>& say) {
  const std::string target = dir + "/" + d.file.path, part = target + ".part";
  std::string problem;
  for (const std::string& url : d.urls) {
    say("downloading " + url);
    const int code =
        run_program({"curl", "--fail", "--location", "--silent", "--show-error",
                     // Also after a redirection: no file of this machine, no other protocol.
                     "--proto", "=https,http", "--proto-redir", "=https,http", "--connect-timeout",
                     "15", "--speed-limit", "1000", "--speed-time", "60", "--output", part, url});
    if (code == 23)
      throw_disk_error("write", part, ENOSPC,
                       d.file.bytes > 0 ? static_cast<uint64_t>(d.file.bytes) : 0);
    if (code == 0) {
      const std::string md5 = md5_file(part);
      if (md5 == d.file.md5) {
        rename_path(part, target);
        return;
      }
      std::string kind;
      {
        const MappedFile content(part);
        kind = recognise(content.bytes());
      }
      problem = str("md5 ", md5, " instead of ", d.file.md5, " from ", host_of(url),
                    kind.empty() ? "" : ": " + kind);
    } else {
      problem = curl_problem(code, url);
    }
    say(problem);
    std::remove(part.c_str());
  }
  throw DataError(str("\"", target, "\": not downloaded: ", problem, "; fetch ", d.urls[0],
                      " elsewhere (md5 ", d.file.md5, ") and put it into ", dir,
                      ", then run the same command again"));
}

// Every member below dir; names that would leave it are refused.
void unzip(const std::string& archive, const std::string& dir) {
  const MappedFile file(archive);
  const ZipArchive zip(file.bytes(), archive);
  for (const ZipEntry& e : zip.entries()) {
    const fs::path name(e.name);
    const bool leaves =
        name.is_absolute() ||
        std::any_of(name.begin(), name.end(), [](const fs::path& p) { return p == ".."; });
    if (leaves) throw_data_error(archive, -1, "names inside the folder", e.name.substr(0, 120));
    const fs::path target = fs::path(dir) / name;
    if (e.name.ends_with("/")) {
      make_directories(target.string());
      continue;
    }
    make_directories(target.parent_path().string());
    const ZipMember member = zip.read(e);
    const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) throw_disk_error("create", target.string(), errno, member.bytes.size());
    try {
      write_all(fd, member.bytes.data(), member.bytes.size(), target.string());
    } catch (...) {
      ::close(fd);
      throw;
    }
    ::close(fd);
  }
}

// Whether every file is the official one by its md5, or all of it can be read.
bool whole(const VerifyReport& report, const std::function<void(const std::string&)>& say) {
  const bool official =
      std::all_of(report.rows.begin(), report.rows.end(), [](const VerifyRow& row) {
        return row.status == FileStatus::ok && !row.expected.md5.empty();
      });
  if (official) return true;
  try {
    for (const char* split : {"train", "test"})
      load_dataset({report.dataset, report.dir, split, 0, 0});
    return true;
  } catch (const DataError& e) {
    say(e.what());
    return false;
  }
}

}  // namespace

void fetch_dataset(const std::string& name, const std::string& dir_or_empty,
                   const std::function<void(const std::string&)>& say) {
  const DatasetRow& row = dataset_row(name);
  if (row.info.procedural) {
    say(name + " is made in memory: nothing to download");
    return;
  }
  if (row.downloads.empty())
    throw UsageError(str("dataset \"", name, "\" cannot be downloaded: ", row.info.source));
  const std::string dir = dir_or_empty.empty() ? dataset_default_dir(name) : dir_or_empty;
  const VerifyReport before = verify_dataset(name, dir);
  if (before.usable && whole(before, say)) {
    say(str("\"", dir, "\": complete, nothing to download"));
    return;
  }
  make_directories(dir);
  for (const DataDownload& d : row.downloads) {
    const std::string path = dir + "/" + d.file.path;
    if (file_exists(path) && md5_file(path) == d.file.md5) {
      say(d.file.path + ": here already");
    } else {
      download(d, dir, say);
    }
    if (d.unpack == DataDownload::Unpack::none) continue;
    say("unpacking " + d.file.path);
    if (d.unpack == DataDownload::Unpack::zip) {
      unzip(path, dir);
    } else if (const int code = run_program({"tar", "--force-local", "-xzf", path, "-C", dir})) {
      throw DataError(
          str("\"", path, "\": tar ended with code ", code, code == 127 ? " (not installed)" : ""));
    }
  }
  const VerifyReport after = verify_dataset(name, dir);
  for (const VerifyRow& file : after.rows)
    if (file.status == FileStatus::missing || file.status == FileStatus::bad_size)
      throw DataError(str("\"", dir, "/", file.expected.path, "\": ", name_of(file.status),
                          " after the download"));
  say(str("\"", dir, "\": complete"));
}

}  // namespace mtcki::data

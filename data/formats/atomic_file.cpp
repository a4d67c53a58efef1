#include "data/formats/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki::data {

namespace {

std::atomic<IoHook> g_hook{nullptr};

// The errno that a test wants `operation` to end with, or 0.
int injected(const char* operation) {
  const IoHook hook = g_hook.load(std::memory_order_relaxed);
  return hook ? hook(operation) : 0;
}

// 0 or errno; a failed close may be the first news of a full disk on network file systems.
int close_file(int fd) {
  const int fault = injected("close");
  const int result = ::close(fd);
  if (fault) return fault;
  return result == 0 || errno == EINTR ? 0 : errno;
}

int write_errno(int fd, const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const int fault = injected("write");
    ssize_t n = -1;
    if (fault) {
      errno = fault;
    } else {
      n = ::write(fd, p, std::min<size_t>(bytes, size_t{1} << 20));
    }
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (n == 0) return ENOSPC;
    p += n;
    bytes -= static_cast<size_t>(n);
  }
  return 0;
}

int sync_errno(int fd, const char* operation) {
  while (true) {
    const int fault = injected(operation);
    if (fault == 0 && ::fsync(fd) == 0) return 0;
    const int error = fault ? fault : errno;
    if (error == EINTR) continue;
    // Some file systems cannot sync directories or special files; there is nothing to wait for.
    return error == EINVAL || error == EROFS ? 0 : error;
  }
}

const char* kind_of(mode_t mode) {
  if (S_ISLNK(mode)) return "a symbolic link";
  if (S_ISDIR(mode)) return "a folder";
  return S_ISFIFO(mode) ? "a named pipe" : "a device or socket";
}

}  // namespace

void set_io_hook(IoHook hook) { g_hook.store(hook); }

std::string parent_directory(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

uint64_t free_bytes(const std::string& path) {
  std::filesystem::path p = path.empty() ? "." : path;
  struct statvfs info {};
  while (::statvfs(p.c_str(), &info) != 0) {
    const std::filesystem::path up = p.parent_path();
    if (up == p || up.empty()) {
      if (::statvfs(".", &info) != 0) return 0;
      break;
    }
    p = up;
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

void throw_disk_error(const char* operation, const std::string& path, int error, uint64_t needed) {
  std::string text = str("cannot ", operation, " \"", path, "\": ");
  const std::string folder = parent_directory(path);
  if (error == ENOENT && ::access(folder.c_str(), F_OK) != 0)
    throw DiskError(str(text, "the folder \"", folder, "\" does not exist"));
  text += std::strerror(error);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    text += str(" (needed ", human_bytes(needed), ", ", human_bytes(free_bytes(folder)), " free)");
  if (error == ENOSPC || error == EDQUOT)
    text += "; free some space and run the same command again";
  throw DiskError(text);
}

void write_all(int fd, const void* data, size_t bytes, const std::string& path) {
  if (const int error = write_errno(fd, data, bytes)) throw_disk_error("write", path, error, bytes);
}

int open_for_appending(const std::string& path) {
  int fd;
  do {
    // Non-blocking until it is known to be no pipe.
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW,
                0666);
  } while (fd < 0 && errno == EINTR);
  const int error = errno;
  struct stat info {};
  const bool known = fd < 0 ? ::lstat(path.c_str(), &info) == 0 : ::fstat(fd, &info) == 0;
  if (fd < 0 && (!known || S_ISREG(info.st_mode))) throw_disk_error("open", path, error, 0);
  if (fd < 0 || !known || !S_ISREG(info.st_mode)) {
    if (fd >= 0) ::close(fd);
    throw DiskError(
        str("cannot write \"", path, "\": it is there and ", kind_of(info.st_mode), "; remove it"));
  }
  ::fcntl(fd, F_SETFL, O_APPEND);
  return fd;
}

void sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_disk_error("open folder", path, errno, 0);
  const int error = sync_errno(fd, "fsync-dir");
  ::close(fd);
  if (error) throw_disk_error("sync folder", path, error, 0);
}

void rename_path(const std::string& from, const std::string& to) {
  if (const int fault = injected("rename")) throw_disk_error("rename to", to, fault, 0);
  if (std::rename(from.c_str(), to.c_str()) != 0) throw_disk_error("rename to", to, errno, 0);
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::vector<std::string> missing;
  for (std::string p = path; !std::filesystem::exists(p, error); p = parent_directory(p)) {
    missing.push_back(p);
    if (p == parent_directory(p)) break;  // even "." or "/" may not be reached
  }
  std::filesystem::create_directories(path, error);
  if (error) throw_disk_error("create folder", path, error.value(), 0);
  // A folder whose name a power failure takes away takes along what was synced in it.
  for (auto p = missing.rbegin(); p != missing.rend(); ++p)
    if (const std::string parent = parent_directory(*p); ::access(parent.c_str(), R_OK) == 0)
      sync_directory(parent);
}

AtomicFile::AtomicFile(const std::string& path, uint64_t expected_bytes)
    : path_(path), expected_(expected_bytes) {
  static std::atomic<uint64_t> counter{0};
  struct stat target {};
  if (::lstat(path.c_str(), &target) == 0 && !S_ISREG(target.st_mode))
    throw DiskError(str("cannot write \"", path, "\": it is there and ", kind_of(target.st_mode),
                        "; give the name of a file"));
  if (const int fault = injected("open")) throw_disk_error("create", path_, fault, expected_);
  // A name that somebody has taken, perhaps for a link to elsewhere, is left to him.
  for (int tries = 0; tries < 10000; ++tries) {
    temporary_ = str(path, ".tmp-", ::getpid(), "-", counter.fetch_add(1));
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd_ >= 0 || (errno != EINTR && errno != EEXIST)) break;
  }
  if (fd_ < 0) throw_disk_error("create", path_, errno, expected_);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* operation, int error) {
  throw_disk_error(operation, path_, error, std::max(expected_, written_));
}

void AtomicFile::write(const void* data, size_t bytes) {
  written_ += bytes;
  if (const int error = write_errno(fd_, data, bytes)) fail("write", error);
}

void AtomicFile::commit() {
  if (const int error = sync_errno(fd_, "fsync")) fail("sync", error);
  const int fd = fd_;
  fd_ = -1;
  if (const int error = close_file(fd)) fail("close", error);
  rename_path(temporary_, path_);
  temporary_.clear();
  sync_directory(parent_directory(path_));
}

void write_file_atomic(const std::string& path, std::string_view content) {
  AtomicFile file(path, content.size());
  file.write(content);
  file.commit();
}

}  // namespace mtcki::data

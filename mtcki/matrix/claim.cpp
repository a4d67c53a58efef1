#include "mtcki/matrix/claim.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr int64_t kTouchSeconds = 20, kLeaseSeconds = 300;

std::string path_of(const std::string& folder, const std::string& name, int64_t number) {
  return str(folder, "/", name, ".", number);
}

// Of this start of this machine: what flock() can be trusted over, containers included.
std::string boot_id() {
  try {
    std::string id = data::read_text("/proc/sys/kernel/random/boot_id", 100);
    return id.substr(0, id.find('\n'));
  } catch (const DataError&) {
    return "unknown";
  }
}

int64_t steady_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The time by the file system that holds `folder`, whichever machine asks.
int64_t clock_of(const std::string& folder) {
  const std::string path = str(folder, "/clock-", boot_id(), "-", getpid());
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) data::throw_disk_error("open", path, errno, 0);
  struct stat info {};
  const bool known = futimens(fd, nullptr) == 0 && fstat(fd, &info) == 0;
  close(fd);
  unlink(path.c_str());
  if (!known) throw DiskError("cannot read the time of \"" + path + "\"");
  return info.st_mtime;
}

// A claim with this text; whether its owner can be alive.
bool is_alive(int fd, const std::string& text, const std::string& folder) {
  if (text.starts_with("held " + boot_id() + " ")) {
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return true;
    flock(fd, LOCK_UN);
    return false;
  }
  if (!text.empty() && !text.starts_with("held ")) return false;
  struct stat info {};
  return fstat(fd, &info) == 0 && clock_of(folder) - info.st_mtime < kLeaseSeconds;
}

}  // namespace

ClaimState read_claim(const std::string& folder, const std::string& name) {
  ClaimState state;
  int fd = -1;
  for (;;) {
    const std::string path = path_of(folder, name, state.number + 1);
    const int next = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (next < 0 && errno != ENOENT) data::throw_disk_error("open", path, errno, 0);
    if (next < 0) break;
    if (fd >= 0) close(fd);
    fd = next;
    ++state.number;
  }
  if (fd < 0) return state;
  char text[4096];
  const ssize_t n = pread(fd, text, sizeof text, 0);
  state.text.assign(text, n > 0 ? static_cast<size_t>(n) : 0);
  state.text = state.text.substr(0, state.text.find('\n'));
  try {
    state.held = is_alive(fd, state.text, folder);
  } catch (...) {
    close(fd);
    throw;
  }
  close(fd);
  return state;
}

std::optional<Claim> Claim::take(const std::string& folder, const std::string& name) {
  const ClaimState last = read_claim(folder, name);
  if (last.held) return std::nullopt;
  const std::string path = path_of(folder, name, last.number + 1);
  // Inherited by the process that computes: the claim lasts as long as either of the two.
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
  if (fd < 0 && errno == EEXIST) return std::nullopt;
  if (fd < 0) data::throw_disk_error("create", path, errno, 0);
  Claim claim(path, path_of(folder, name, last.number + 2), fd);
  claim.before_ = last.text;
  flock(fd, LOCK_EX);  // whoever looks at it holds it for a moment only
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const std::string text = str("held ", boot_id(), " ", getpid(), " ", host, "\n");
  data::write_all(fd, text.data(), text.size(), path);
  return claim;
}

Claim::Claim(std::string path, std::string next, int fd)
    : path_(std::move(path)), next_(std::move(next)), fd_(fd), touched_(steady_seconds()) {}

Claim& Claim::operator=(Claim&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(next_, other.next_);
  std::swap(before_, other.before_);
  std::swap(fd_, other.fd_);
  std::swap(touched_, other.touched_);
  return *this;
}

Claim::~Claim() {
  try {
    if (fd_ >= 0) close("stopped");
  } catch (const Error&) {
    // It becomes void by itself.
  }
}

bool Claim::keep() {
  const int64_t now = steady_seconds();
  if (now - touched_ < kTouchSeconds) return true;
  touched_ = now;
  futimens(fd_, nullptr);
  std::error_code ec;
  return !std::filesystem::exists(next_, ec);
}

void Claim::close(const std::string& text) {
  const int fd = fd_;
  fd_ = -1;
  const std::string line = text.substr(0, text.find('\n')).substr(0, 4000) + "\n";
  const bool written =
      ftruncate(fd, 0) == 0 &&
      pwrite(fd, line.data(), line.size(), 0) == static_cast<ssize_t>(line.size()) &&
      fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written) data::throw_disk_error("write", path_, error, line.size());
}

}  // namespace mtcki

// Claims: which process works on a job of a matrix, kept in a folder that several machines share.
//
// NAME.1, NAME.2, ... are the claims that were ever made on a job; the last one counts. A claim is
// made by creating the next number, which one process alone can do (O_EXCL), and holds one line:
//   held BOOT PID HOST   by a process of the machine that was started as BOOT
//   TEXT                 what came of it: "finished ...", "failed ...", "stopped"
// An owner that died: on the same machine the kernel has released its flock on the file; on another
// one it no longer touches the file, every 20 seconds, and after 5 minutes without that, by the clock
// of the file system, the claim is void. A process that was suspended for longer finds a later claim
// than its own and has to leave.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace mtcki {

struct ClaimState {
  int64_t number = 0;  // 0: nobody ever claimed it
  std::string text;    // of the last claim; "" while its owner has not written yet
  bool held = false;   // by an owner that is alive, as far as one can know
};
ClaimState read_claim(const std::string& folder, const std::string& name);

class Claim {
 public:
  // Nothing when another process holds it or was faster.
  static std::optional<Claim> take(const std::string& folder, const std::string& name);
  Claim(Claim&& other) noexcept { *this = std::move(other); }
  Claim& operator=(Claim&& other) noexcept;
  ~Claim();  // releases what was not closed as "stopped"

  // What the claim before this one says: the job may have been finished meanwhile.
  const std::string& before() const { return before_; }
  // Shows that the owner lives; to be called at least every few seconds. False when the claim is
  // lost to a later one.
  bool keep();
  // Says what came of it and releases it.
  void close(const std::string& text);

 private:
  Claim(std::string path, std::string next, int fd);
  std::string path_, next_, before_;
  int fd_ = -1;
  int64_t touched_ = 0;  // seconds of the monotonic clock
};

}  // namespace mtcki

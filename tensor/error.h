// Typed exceptions. Every message is one clear line (operands may follow, one per line): what is
// wrong, where, and what to do. `exit_code()` is what the command-line tool returns for it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mtcki {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = 1)
      : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

// Programming errors at an op: exit code 1 unless configuration reaches them.
struct ShapeError : Error { explicit ShapeError(const std::string& m) : Error(m, 1) {} };
struct DTypeError : Error { explicit DTypeError(const std::string& m) : Error(m, 1) {} };
struct DeviceError : Error { explicit DeviceError(const std::string& m) : Error(m, 2) {} };
struct GradientError : Error { explicit GradientError(const std::string& m) : Error(m, 1) {} };
struct CaptureError : Error { explicit CaptureError(const std::string& m) : Error(m, 1) {} };
// What a user meets.
struct UsageError : Error { explicit UsageError(const std::string& m) : Error(m, 2) {} };
struct DataError : Error { explicit DataError(const std::string& m) : Error(m, 3) {} };
struct NumericError : Error { explicit NumericError(const std::string& m) : Error(m, 4) {} };
struct OutOfMemoryError : Error { explicit OutOfMemoryError(const std::string& m) : Error(m, 5) {} };
struct DiskError : Error { explicit DiskError(const std::string& m) : Error(m, 6) {} };

// str("a", 1, "b") -> "a1b"
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace mtcki

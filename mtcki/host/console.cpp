#include "mtcki/host/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "data/formats/atomic_file.h"
#include "mtcki/host/build_info.h"

namespace mtcki::console {

namespace {

std::mutex mutex;
bool quiet_mode = false, silent_mode = false;
std::FILE* log_file = nullptr;
std::string shown;  // the status line now on the terminal

void erase_status() {
  if (!shown.empty()) std::fputs("\r\033[K", stderr);
}

// Bytes of the UTF-8 character at the front of `s` that may be shown; 0: none.
size_t shown_bytes(std::string_view s) {
  const auto byte = [&s](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t n = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || s.size() < n) return 0;
  uint32_t code = first & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
  const bool steers = code < 0xa0 || (code >= 0x200e && code <= 0x200f) ||
                      (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return overlong || steers || surrogate || code > 0x10ffff ? 0 : n;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t n = shown_bytes(text.substr(i));
    if (n > 0) {
      out += text.substr(i, n);
    } else if (text[i] == '\n' && text.substr(i + 1, 2) == "  ") {
      out += '\n';
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    }
    i += std::max<size_t>(n, 1);
  }
  return out;
}

bool is_terminal() {
  static const bool yes = [] {
    const char* term = std::getenv("TERM");
    return isatty(STDERR_FILENO) && term && std::string(term) != "dumb";
  }();
  return yes;
}

bool has_color() {
  static const bool yes = [] {
    const char* no = std::getenv("NO_COLOR");
    return is_terminal() && !(no && *no);
  }();
  return yes;
}

int width(int file) {
  winsize size{};
  if (ioctl(file, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

void set_quiet(bool on) { quiet_mode = on; }
bool quiet() { return quiet_mode; }
void set_silent(bool on) { silent_mode = on; }

void set_log_file(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (log_file) std::fclose(log_file);
  log_file = nullptr;  // should the next one fail
  log_file = path.empty() ? nullptr : fdopen(data::open_for_appending(path), "a");
}

void line(Level level, const std::string& raw) {
  const std::string text = printable(raw);
  const std::lock_guard<std::mutex> lock(mutex);
  const char* const names[] = {"", "warning: ", "error: "};
  const char* const colors[] = {"", "\033[33m", "\033[31m"};
  const int l = static_cast<int>(level);
  if (log_file) {
    std::fprintf(log_file, "%s %s%s\n", utc_now().c_str(), names[l], text.c_str());
    std::fflush(log_file);
  }
  if (silent_mode || (level == Level::info && quiet_mode)) return;
  erase_status();
  const bool color = has_color() && level != Level::info;
  std::fprintf(stderr, "%s%s%s%s\n", color ? colors[l] : "", names[l], color ? "\033[0m" : "",
               text.c_str());
  if (!shown.empty()) std::fputs(shown.c_str(), stderr);
  std::fflush(stderr);
}

void status(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!is_terminal() || quiet_mode || silent_mode) return;
  erase_status();
  shown = text;
  std::fputs(shown.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace mtcki::console

#include "mtcki/host/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

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

}  // namespace

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

int width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

void set_quiet(bool on) { quiet_mode = on; }
bool quiet() { return quiet_mode; }
void set_silent(bool on) { silent_mode = on; }

void set_log_file(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (log_file) std::fclose(log_file);
  log_file = path.empty() ? nullptr : std::fopen(path.c_str(), "ae");
}

void line(Level level, const std::string& text) {
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

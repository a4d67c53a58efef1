#include "data/formats/lost_mapping.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mtcki::data {

namespace {

// Everything here runs inside a signal handler: system calls and memory of its own only.

void say(std::string_view text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nobody is left to tell
}

const char* hexadecimal(const char* p, uintptr_t* value) {
  for (*value = 0;; ++p) {
    const char c = *p;
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return p;
    *value = *value << 4 | static_cast<uintptr_t>(digit);
  }
}

// The path in a line "begin-end flags offset device inode   /path" of /proc/self/maps, when the
// address lies in it; nullptr.
const char* path_in(char* line, uintptr_t address) {
  uintptr_t begin = 0, end = 0;
  const char* p = hexadecimal(line, &begin);
  if (*p != '-') return nullptr;
  hexadecimal(p + 1, &end);
  if (address < begin || address >= end) return nullptr;
  for (char* c = line; *c; ++c)
    if (*c == '/') {
      for (char* text = c; *text; ++text)
        if (static_cast<unsigned char>(*text) < 0x20 || *text == 0x7f) *text = '?';
      return c;
    }
  return nullptr;
}

void say_file_at(uintptr_t address) {
  const int fd = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char line[4500];
  size_t length = 0;
  for (char c; ::read(fd, &c, 1) == 1;) {
    if (c != '\n') {
      if (length + 1 < sizeof line) line[length++] = c;
      continue;
    }
    line[length] = 0;
    length = 0;
    if (const char* path = path_in(line, address)) {
      say("\"");
      say(path);
      say("\": ");
      break;
    }
  }
  ::close(fd);
}

void end_program(int, siginfo_t* info, void*) {
  say("\nerror: ");
  say_file_at(reinterpret_cast<uintptr_t>(info->si_addr));
  say("became shorter, or its disk failed, while it was being read; run the same command again: it "
      "goes on, or says what to delete\n");
  ::_exit(3);  // that of damaged data
}

}  // namespace

void report_lost_mappings() {
  struct sigaction action {};
  action.sa_sigaction = end_program;
  action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace mtcki::data

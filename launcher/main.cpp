// `mtcki` where it was built for several instruction sets (docs/decisions/instruction-sets.md):
// becomes the build that suits this CPU, with the same arguments. Compiled for any CPU, so it
// includes nothing of the libraries.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "launcher/choose.h"

namespace {

namespace fs = std::filesystem;
using namespace mtcki::launcher;  // NOLINT: a program, not a header

std::vector<std::string> supported() {
  std::vector<std::string> levels;
  // The builtin takes literals only.
  if (__builtin_cpu_supports("x86-64-v4")) levels.emplace_back("x86-64-v4");
  if (__builtin_cpu_supports("x86-64-v3")) levels.emplace_back("x86-64-v3");
  if (__builtin_cpu_supports("x86-64-v2")) levels.emplace_back("x86-64-v2");
  levels.emplace_back("x86-64");
  return levels;
}

std::string program(const fs::path& folder, const std::string& level) {
  return (folder / level / "mtcki").string();
}

std::vector<std::string> built(const fs::path& folder) {
  std::vector<std::string> levels;
  for (const std::string& level : kLevels)
    if (access(program(folder, level).c_str(), X_OK) == 0) levels.push_back(level);
  return levels;
}

int fail(const std::string& text, int exit_code) {
  std::fprintf(stderr, "error: %s\n", text.c_str());
  return exit_code;
}

}  // namespace

int main(int, char** argv) {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  if (ec) return fail("/proc/self/exe: " + ec.message(), 1);
  // In a build folder, or installed; relative, so that either may be moved.
  fs::path folder = self.parent_path() / "variants";
  if (built(folder).empty()) folder = self.parent_path() / MTCKI_INSTALLED_VARIANTS;
  const char* forced = std::getenv("MTCKI_CPU");
  const Choice choice = choose(built(folder), supported(), forced ? forced : "");
  if (choice.level.empty()) return fail(choice.error, 2);
  const std::string path = program(folder, choice.level);
  execv(path.c_str(), argv);
  return fail(path + ": " + std::strerror(errno), 1);
}

#include "tensor/parallel.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace mtcki {

namespace {
// Asked before the first omp_set_num_threads: what OpenMP itself chose.
int default_threads() {
  static const int threads = omp_get_max_threads();
  return threads;
}
int& thread_setting() {
  static int threads = default_threads();
  return threads;
}
}  // namespace

void set_num_threads(int threads) {
  const int unset = default_threads();
  thread_setting() = threads > 0 ? threads : unset;
  omp_set_num_threads(thread_setting());  // oneDNN and other users of OpenMP follow
}

int num_threads() { return thread_setting(); }

void bound_waiting(char* const* argv) {
  // The shortest of the spins tried that did not slow down steps of a few milliseconds on a quiet
  // machine (docs/decisions/busy-machines.md).
  constexpr char kTurns[] = "5000";
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  // Not by the link itself, or the process would be called "exe".
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  setenv("GOMP_SPINCOUNT", kTurns, 1);
  execv(program, argv);
}

}  // namespace mtcki

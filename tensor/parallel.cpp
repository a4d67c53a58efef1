#include "tensor/parallel.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
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

// As in linux/sched/types.h, which older headers lack.
struct SchedAttr {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;  // ns
};

// Linux 6.12 and later: how long a thread runs before the next one has its turn. Beside busy
// processes a thread that wakes for its part of a loop is let in earlier when its turns are short.
// Kept over exec and by new threads; policy and priority stay. Older kernels ignore it.
void ask_for_short_turns() {
  constexpr uint64_t kTurnNs = 100'000;  // the shortest that Linux grants
  SchedAttr turn{};
  if (syscall(SYS_sched_getattr, 0, &turn, sizeof turn, 0) != 0) return;
  constexpr uint32_t kOther = 0, kBatch = 3;
  if (turn.policy != kOther && turn.policy != kBatch) return;
  turn.size = sizeof turn;
  turn.runtime = kTurnNs;
  syscall(SYS_sched_setattr, 0, &turn, 0);
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
  ask_for_short_turns();
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

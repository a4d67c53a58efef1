// Signals only set a flag: saving inside a handler would meet a half-made step.
#include "mtcki/host/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

std::atomic<int> received{0};
std::atomic<bool> silent{false};  // of the ranks of a job the first one speaks
static_assert(std::atomic<int>::is_always_lock_free);

void say(const char* text, size_t bytes) {
  if (write(STDERR_FILENO, text, bytes) < 0) return;  // nowhere to complain
}

extern "C" void on_signal(int signal) {
  const int asked = signal == SIGINT ? SIGINT : SIGTERM;
  const int before = received.exchange(asked);
  if (before == SIGINT && asked == SIGINT) _exit(130);
  if (silent.load() || before == asked) return;
  static const char interrupt[] =
      "\nStopping: finishing this step and saving. Press Ctrl-C again to quit without saving.\n";
  static const char terminate[] = "\nStopping: finishing this step and saving.\n";
  if (asked == SIGINT)
    say(interrupt, sizeof interrupt - 1);
  else
    say(terminate, sizeof terminate - 1);
}

// oneDNN's products with a long inner dimension (dnnl_sgemm, AVX2 and AVX-512, seen in 2.6.3) point
// the stack pointer into a buffer on the heap. A handler on the thread's own stack would write its
// frame over what lies below that buffer: tensors, or malloc's bookkeeping. So it gets a stack. The
// kernel hands a process's signals to the main thread, which is the one that calls this.
void use_a_stack_for_handlers() {
  alignas(64) static char memory[1 << 16];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  if (sigaltstack(&stack, nullptr) != 0)
    throw Error(std::string("cannot give signal handlers a stack: ") + std::strerror(errno));
}

}  // namespace

void install_signal_handlers() {
  silent.store(!communicator().is_root());
  use_a_stack_for_handlers();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  for (const int s : {SIGINT, SIGTERM, SIGUSR1}) sigaction(s, &action, nullptr);
}

int stop_signal() { return received.load(); }

}  // namespace mtcki

// Signals only set a flag: saving inside a handler would meet a half-made step.
#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "mtcki/run_log.h"
#include "tensor/comm.h"

namespace mtcki {

namespace {

std::atomic<int> received{0};
std::atomic<bool> silent{false};  // of the ranks of a job the first one speaks
static_assert(std::atomic<int>::is_always_lock_free);

void say(const char* text, size_t bytes) {
  if (write(STDERR_FILENO, text, bytes) < 0) return;  // nowhere to complain
}

extern "C" void on_signal(int signal) {
  if (signal == SIGINT && received.load() == SIGINT) _exit(130);
  received.store(signal == SIGINT ? SIGINT : SIGTERM);
  if (silent.load()) return;
  static const char interrupt[] =
      "\nstopping after the running step, which is saved then; Ctrl-C again leaves at once\n";
  static const char terminate[] = "\nstopping after the running step, which is saved then\n";
  if (signal == SIGINT)
    say(interrupt, sizeof interrupt - 1);
  else
    say(terminate, sizeof terminate - 1);
}

}  // namespace

void install_signal_handlers() {
  silent.store(!communicator().is_root());
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int s : {SIGINT, SIGTERM, SIGUSR1}) sigaction(s, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of a write, not the end of the run
}

int stop_signal() { return received.load(); }

}  // namespace mtcki

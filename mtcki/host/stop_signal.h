// The stop flag that signals set.
#pragma once

namespace mtcki {

// Set by SIGINT/SIGTERM/SIGUSR1 (a second SIGINT leaves at once with 130). Stages poll it after
// every step, save, and throw Stopped.
void install_signal_handlers();
int stop_signal();  // 0, or SIGINT / SIGTERM (SIGUSR1 counts as SIGTERM)
struct Stopped {
  int signal;  // exit code 128 + signal
};

}  // namespace mtcki

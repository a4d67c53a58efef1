#include "mtcki/training/stage_control.h"

#include <csignal>

#include "tensor/comm.h"

namespace mtcki {

namespace {
int64_t polls_to_stop = 0, polls_to_kill = 0;
}

int poll_stop() {
  if (polls_to_kill > 0 && --polls_to_kill == 0) throw SimulatedKill{};
  const bool simulated = polls_to_stop > 0 && --polls_to_stop == 0;
  // Signals reach the ranks of a job at different times: they stop together.
  return static_cast<int>(communicator().max(simulated ? SIGTERM : stop_signal()));
}

void stop_here_if_asked() {
  if (const int signal = static_cast<int>(communicator().max(stop_signal()))) throw Stopped{signal};
}

void stop_after_polls(int64_t polls) { polls_to_stop = polls; }
void kill_after_polls(int64_t polls) { polls_to_kill = polls; }

}  // namespace mtcki

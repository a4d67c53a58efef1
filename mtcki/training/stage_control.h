// What every stage does between two steps: look whether it should stop.
#pragma once

#include <cstdint>

#include "mtcki/host/stop_signal.h"

namespace mtcki {

// 0, or the signal to stop for. Polled after every step, by all ranks of a job together; the stage
// saves, then throws Stopped.
int poll_stop();
// Between stages, where nothing waits to be saved: throws Stopped when a signal came.
void stop_here_if_asked();

// Tests: from now on, at poll number `polls` (1-based), either act as if SIGTERM had come, or throw
// SimulatedKill, as if the process had died there without saving. 0 polls: never.
struct SimulatedKill {};
void stop_after_polls(int64_t polls);
void kill_after_polls(int64_t polls);

}  // namespace mtcki

// A profile as text, CSV and a trace; two profiles side by side.
#pragma once

#include <string>
#include <vector>

#include "mtcki/profile/profile.h"
#include "tensor/profiler_activity.h"

namespace mtcki {

// One line per row: op, module, operand, calls per step, µs and share of the step, GFLOP/s, GB/s,
// floor, % of the roof, bound, headroom, kernel; columns that say nothing are left out. Then the
// sums against the measured step. most 0: all rows; else the rest is summed into one line. room:
// columns of the terminal, for which some of the table's are left out and named; 0: none is. depth:
// as in grouped().
std::string profile_text(const Profile& profile, ProfileBy by, int64_t most, size_t room = 0,
                         int64_t depth = 0);
// All rows by layer, every field.
std::string profile_csv(const Profile& profile);
// For chrome://tracing and ui.perfetto.dev: a process for the host and one per device, memory as a
// counter, a bar per step and stage, an arrow from the host's part of an op to the device's. kernels: of
// recorded kernels, drawn instead of the device's events, with the calls that started them.
std::string chrome_trace(const std::vector<profiler::Event>& events,
                         const std::vector<profiler::Slice>& kernels = {});
// What changed from a to b: time per step of each group, largest change first.
std::string profile_diff(const Profile& a, const Profile& b, ProfileBy by, int64_t most);

}  // namespace mtcki

// What a profiled step costs, op by op, beside what it could cost: the rows behind the tables of
// `mtcki profile`, and its file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mtcki/profile/roof.h"
#include "tensor/profiler_activity.h"

namespace mtcki {

// One kind of call, per step. Fields that the merged calls do not share hold kMixed.
struct OpCost {
  std::string op, pass;                   // pass: "fwd" or "bwd"
  std::string module, stage;              // empty: none
  std::string shape, dtype, layout;       // of the first operand
  std::string note, device;               // kernel or engine
  double calls = 0, us = 0, host_us = 0;  // us: median over the steps, nested ops excluded
  double p10_us = 0, p90_us = 0;          // of us over the steps
  double exclusive_us = 0;                // profiler::Share, median over the steps
  double launches = 0;                    // kernels, copies and fills; 0: not counted
  double flops = 0, bytes = 0;
  double floor_us = 0;  // Σ Roof::floor of the calls; 0 without a roof
  // What the floor says: "compute", "memory"; "latency" when a call could be done in less than the
  // least time of its kernels or a parallel loop; "-" without a roof, or where nothing is computed
  // or moved.
  std::string bound = "-";

  double gflops() const { return us > 0 ? flops / us * 1e-3 : 0; }
  double gbytes() const { return us > 0 ? bytes / us * 1e-3 : 0; }
  double intensity() const { return bytes > 0 ? flops / bytes : 0; }  // FLOP per byte
  double roof_percent() const { return us > 0 ? 100 * floor_us / us : 0; }
  double headroom_us() const { return us - floor_us; }
};
inline constexpr char kMixed[] = "*";

enum class ProfileBy { layer, op, module, stage };
ProfileBy profile_by(const std::string& name);  // UsageError for other names

// An op of one step on its timeline.
struct TimelineOp {
  std::string op, module;
  std::string phase;            // "forward", "backward" or "update", the optimiser
  int track = 0;                // host thread, or stream of the GPU
  double start_us = 0, us = 0;  // since the step began; from its first to its last kernel
  size_t memory = 0;            // in use afterwards
};

struct Profile {
  std::string step, model, device = "cpu", machine, math = "f32", level = "ops";
  std::string version, date;
  std::string roof_date;  // empty: no roof
  int64_t batch = 0, steps = 0, threads = 0;
  int64_t warmup = 0;  // steps before those that count
  double step_us = 0;  // median, nothing recorded
  double step_p10_us = 0, step_p90_us = 0;
  double profiled_us = 0;  // median, while recording
  size_t peak_memory = 0;
  ClockRange clocks;
  std::optional<Roof> roof;
  std::vector<OpCost> rows;          // by layer, most headroom first
  std::vector<TimelineOp> timeline;  // of a typical step, by start

  double ops_us() const;      // Σ us
  double floor_us() const;    // Σ floors
  double idle_us() const;     // of a step while recording: nothing ran
  double overlap_us() const;  // Σ us that ran beside other work
  // What ops whose bound is latency take, each kernel's time for itself.
  double launch_bound_us() const;
  // "p10 98.0, p90 103.2, 5 steps after 3 of warm-up, 2.98 GHz"
  std::string noise_text() const;
  // Why its numbers are doubtful, one line each; those of the roof come first.
  std::vector<std::string> doubts() const;
  // What recording adds to a step, as a part of it.
  double overhead() const { return step_us > 0 ? profiled_us / step_us - 1 : 0; }
};

// The ops of step number `step`, for Profile::timeline.
std::vector<TimelineOp> timeline_of(const std::vector<profiler::Event>& events, int64_t step);

// Rows by layer: one for each op, pass, module, stage, operand and kernel. Captured scopes, which
// have no time, are left out. roof may be null.
// shares: of each event (profiler_activity.h); none: ops run one after the other.
std::vector<OpCost> op_costs(const std::vector<profiler::Event>& events, int64_t steps,
                             const Roof* roof, int threads, const std::string& math,
                             const std::vector<profiler::Share>& shares = {});
// Merged by op, module or stage, most time first; by layer as they are, most headroom first. depth:
// of the modules' paths, "layer1.0.conv1" is in "layer1" at 1; 0: all of it.
std::vector<OpCost> grouped(const std::vector<OpCost>& rows, ProfileBy by, int64_t depth = 0);

// One op of two profiles. Kernels are left out of what is compared: another choice is what a
// comparison is to show.
struct OpChange {
  OpCost row;  // names, of the profile that has it
  double before_us = 0, after_us = 0;
  bool in_before = false, in_after = false;
  // The ranges from p10 to p90 overlap: may be chance.
  bool noise = false;
};
std::vector<OpChange> changes(const Profile& before, const Profile& after, ProfileBy by);

// Schema "mtcki-profile/1". Fields are added, never renamed or removed, within a version.
nlohmann::json to_json(const Profile& profile);
Profile profile_from_json(const nlohmann::json& j, const std::string& file);  // DataError
Profile read_profile(const std::string& file);

double median(std::vector<double> values);              // 0 for none
double quantile(std::vector<double> values, double q);  // between the two nearest; 0 for none

}  // namespace mtcki

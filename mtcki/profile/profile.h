// What a profiled step costs, op by op, beside what it could cost: the rows behind the tables of
// `mtcki profile`, and its file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mtcki/profile/roof.h"
#include "tensor/profiler.h"

namespace mtcki {

// One kind of call, per step. Fields that the merged calls do not share hold kMixed.
struct OpCost {
  std::string op, pass;                   // pass: "fwd" or "bwd"
  std::string module, stage;              // empty: none
  std::string shape, dtype, layout;       // of the first operand
  std::string note, device;               // kernel or engine
  double calls = 0, us = 0, host_us = 0;  // us: median over the steps, nested ops excluded
  double flops = 0, bytes = 0;
  double floor_us = 0;  // Σ max(flops / peak, bytes / bandwidth); 0 without a roof
  // What the floor says: "compute", "memory"; "latency" when a call's floor is less than the least
  // time of a kernel; "-" without a roof, or where nothing is computed or moved.
  std::string bound = "-";

  double gflops() const { return us > 0 ? flops / us * 1e-3 : 0; }
  double gbytes() const { return us > 0 ? bytes / us * 1e-3 : 0; }
  double roof_percent() const { return us > 0 ? 100 * floor_us / us : 0; }
  double headroom_us() const { return us - floor_us; }
};
inline constexpr char kMixed[] = "*";

enum class ProfileBy { layer, op, module, stage };
ProfileBy profile_by(const std::string& name);  // UsageError for other names

struct Profile {
  std::string step, model, device = "cpu", machine, math = "f32", level = "ops";
  std::string version, date;
  std::string roof_date;  // empty: no roof
  int64_t batch = 0, steps = 0, threads = 0;
  double step_us = 0;      // median, nothing recorded
  double profiled_us = 0;  // median, while recording
  size_t peak_memory = 0;
  std::vector<OpCost> rows;  // by layer, most headroom first

  double ops_us() const;    // Σ us
  double floor_us() const;  // Σ floors
  // What recording adds to a step, as a part of it.
  double overhead() const { return step_us > 0 ? profiled_us / step_us - 1 : 0; }
};

// Rows by layer: one for each op, pass, module, stage, operand and kernel. Captured scopes, which
// have no time, are left out. roof may be null.
std::vector<OpCost> op_costs(const std::vector<profiler::Event>& events, int64_t steps,
                             const Roof* roof, int threads, const std::string& math);
// Merged by op, module or stage; most headroom first, then most time.
std::vector<OpCost> grouped(const std::vector<OpCost>& rows, ProfileBy by);

// Schema "mtcki-profile/1". Fields are added, never renamed or removed, within a version.
nlohmann::json to_json(const Profile& profile);
Profile profile_from_json(const nlohmann::json& j, const std::string& file);  // DataError
Profile read_profile(const std::string& file);

double median(std::vector<double> values);  // 0 for none

}  // namespace mtcki

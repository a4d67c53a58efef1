#include "mtcki/profile/profile.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr char kProfileSchema[] = "mtcki-profile/1";

void sort_rows(std::vector<OpCost>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const OpCost& a, const OpCost& b) {
    return std::make_tuple(a.headroom_us(), a.us) > std::make_tuple(b.headroom_us(), b.us);
  });
}

void merge(std::string& into, const std::string& other) {
  if (into != other) into = kMixed;
}

}  // namespace

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  const size_t n = v.size();
  return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

ProfileBy profile_by(const std::string& name) {
  if (name == "layer") return ProfileBy::layer;
  if (name == "op") return ProfileBy::op;
  if (name == "module") return ProfileBy::module;
  if (name == "stage") return ProfileBy::stage;
  throw UsageError("--by \"" + name + "\": layer, op, module or stage");
}

double Profile::ops_us() const {
  double sum = 0;
  for (const OpCost& r : rows) sum += r.us;
  return sum;
}
double Profile::floor_us() const {
  double sum = 0;
  for (const OpCost& r : rows) sum += r.floor_us;
  return sum;
}

std::vector<OpCost> op_costs(const std::vector<profiler::Event>& events, int64_t steps,
                             const Roof* roof, int threads, const std::string& math) {
  struct Sum {
    OpCost row;
    std::map<int64_t, double> us, host_us;  // by step
  };
  using Key = std::tuple<std::string, bool, std::string, std::string, std::string, std::string,
                         std::string, std::string, std::string>;
  std::map<Key, Sum> sums;
  for (const profiler::Event& e : events) {
    if (e.captured) continue;
    Sum& s = sums[Key(e.op, e.backward, e.module, e.stage, e.shape, e.dtype, e.layout, e.note,
                      e.device)];
    OpCost& r = s.row;
    if (r.calls == 0) {
      r.op = e.op;
      r.pass = e.backward ? "bwd" : "fwd";
      r.module = e.module;
      r.stage = e.stage;
      r.shape = e.shape;
      r.dtype = e.dtype;
      r.layout = e.layout;
      r.note = e.note;
      r.device = e.device;
    }
    r.calls += 1;
    r.flops += e.flops;
    r.bytes += e.bytes;
    s.us[e.step] += e.self_us;
    s.host_us[e.step] += e.host_us;
  }
  const double n = static_cast<double>(std::max<int64_t>(1, steps));
  // Steps in which the op did not run count as zero.
  const auto typical = [&](const std::map<int64_t, double>& by_step) {
    // Of work that no step is known for: its mean.
    if (const auto any = by_step.find(profiler::kAnyStep); any != by_step.end())
      return any->second / n;
    std::vector<double> v;
    for (const auto& [step, us] : by_step) v.push_back(us);
    v.resize(std::max(v.size(), static_cast<size_t>(steps)), 0.0);
    return median(std::move(v));
  };
  std::vector<OpCost> rows;
  for (auto& [key, s] : sums) {
    OpCost& r = s.row;
    r.us = typical(s.us);
    r.host_us = typical(s.host_us);
    if (roof && (r.flops > 0 || r.bytes > 0)) {
      bool memory = false;
      const std::string dtype = r.dtype == "f32" && math == "tf32" ? "tf32" : r.dtype;
      const double floor =
          roof->floor_us(r.flops / r.calls, r.bytes / r.calls, dtype, threads, &memory);
      r.floor_us = floor * r.calls / n;
      r.bound = floor < roof->latency_us() ? "latency" : memory ? "memory" : "compute";
    }
    r.calls /= n;
    r.flops /= n;
    r.bytes /= n;
    rows.push_back(std::move(r));
  }
  sort_rows(rows);
  return rows;
}

std::vector<OpCost> grouped(const std::vector<OpCost>& rows, ProfileBy by) {
  std::vector<OpCost> out;
  std::map<std::string, size_t> place;
  for (const OpCost& r : rows) {
    const std::string key = by == ProfileBy::op       ? r.op + "/" + r.pass
                            : by == ProfileBy::module ? r.module + "/" + r.pass
                            : by == ProfileBy::stage  ? r.stage
                                                      : std::to_string(out.size());
    const auto [it, fresh] = place.emplace(key, out.size());
    if (fresh) {
      out.push_back(r);
      continue;
    }
    OpCost& to = out[it->second];
    for (std::string OpCost::*field :
         {&OpCost::op, &OpCost::pass, &OpCost::module, &OpCost::stage, &OpCost::shape,
          &OpCost::dtype, &OpCost::layout, &OpCost::note, &OpCost::device, &OpCost::bound})
      merge(to.*field, r.*field);
    for (double OpCost::*field : {&OpCost::calls, &OpCost::us, &OpCost::host_us, &OpCost::flops,
                                  &OpCost::bytes, &OpCost::floor_us})
      to.*field += r.*field;
  }
  sort_rows(out);
  return out;
}

// Both directions, field by field under the fields' own names.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OpCost, op, pass, module, stage, shape, dtype, layout, note,
                                   device, calls, us, host_us, flops, bytes, floor_us, bound)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Profile, step, model, device, machine, math, level, version,
                                   date, roof_date, batch, steps, threads, step_us, profiled_us,
                                   peak_memory)

nlohmann::json to_json(const Profile& p) {
  nlohmann::json out = p;
  out.update({{"schema", kProfileSchema},
              {"ops_us", p.ops_us()},
              {"floor_us", p.floor_us()},
              {"profile_overhead", p.overhead()},
              {"ops", p.rows}});
  return out;
}

Profile profile_from_json(const nlohmann::json& j, const std::string& file) {
  if (!j.is_object() || j.value("schema", nlohmann::json()) != kProfileSchema)
    throw DataError(str(file, ": not a profile (\"schema\": \"", kProfileSchema,
                        "\"); mtcki profile --json writes one"));
  try {
    Profile p = j;
    p.rows = j.at("ops");
    return p;
  } catch (const nlohmann::json::exception& e) {
    throw DataError(str(file, ": ", e.what()));
  }
}

Profile read_profile(const std::string& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    throw DataError(str("profile \"", file, "\": no such file"));
  if (std::filesystem::is_directory(file, ignored))
    throw DataError(str("profile \"", file, "\" cannot be read: it is a folder"));
  return profile_from_json(data::read_json(file), file);
}

}  // namespace mtcki

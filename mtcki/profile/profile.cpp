#include "mtcki/profile/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <tuple>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr char kProfileSchema[] = "mtcki-profile/1";

constexpr double kWinograd = 4;  // FLOPs of the definition for one of F(4,3), the least we do

void sort_rows(std::vector<OpCost>& rows) {
  std::ranges::stable_sort(rows, std::greater(),
                           [](const OpCost& r) { return std::make_tuple(r.headroom_us(), r.us); });
}

template <class F>
double sum_of(const std::vector<OpCost>& rows, const F& f) {
  double sum = 0;
  for (const OpCost& r : rows) sum += f(r);
  return sum;
}

void merge(std::string& into, const std::string& other) {
  if (into != other) into = kMixed;
}

}  // namespace

double median(std::vector<double> v) { return quantile(std::move(v), 0.5); }

double quantile(std::vector<double> v, double q) {
  if (v.empty()) return 0;
  std::ranges::sort(v);
  const double at = q * static_cast<double>(v.size() - 1);
  const auto low = static_cast<size_t>(at);
  const double rest = at - static_cast<double>(low);
  return rest > 0 ? v[low] + rest * (v[low + 1] - v[low]) : v[low];
}

ProfileBy profile_by(const std::string& name) {
  if (name == "layer") return ProfileBy::layer;
  if (name == "op") return ProfileBy::op;
  if (name == "module") return ProfileBy::module;
  if (name == "stage") return ProfileBy::stage;
  throw UsageError("--by \"" + name + "\": layer, op, module or stage");
}

double Profile::ops_us() const {
  return sum_of(rows, [](const OpCost& r) { return r.us; });
}
double Profile::floor_us() const {
  return sum_of(rows, [](const OpCost& r) { return r.floor_us; });
}
double Profile::idle_us() const {
  const double busy = sum_of(rows, [](const OpCost& r) { return r.exclusive_us; });
  return std::max(0.0, profiled_us - busy);
}
double Profile::overlap_us() const {
  return sum_of(rows, [](const OpCost& r) { return r.us - r.exclusive_us; });
}
double Profile::launch_bound_us() const {
  return sum_of(rows, [](const OpCost& r) { return r.bound == "latency" ? r.exclusive_us : 0; });
}
std::string Profile::noise_text() const {
  std::string out;
  if (step_p90_us > 0) out = fmt::format("p10 {:.1f}, p90 {:.1f}, ", step_p10_us, step_p90_us);
  out += fmt::format("{} step{} after {} of warm-up", steps, steps == 1 ? "" : "s", warmup);
  const std::string clock = clocks.text();
  return clock.empty() ? out : out + ", " + clock;
}
std::vector<std::string> Profile::doubts() const {
  std::vector<std::string> out;
  if (roof)
    if (const std::vector<std::string> lines = roof->doubts(); !lines.empty())
      out.push_back(fmt::format("the roof was measured while something else ran ({}{}): mtcki roof",
                                lines[0], lines.size() > 1 ? ", and more" : ""));
  if (floor_us() > step_us && step_us > 0)
    out.push_back(
        fmt::format("the floors, {:.0f} us, are above the step, {:.0f} us: the roof is too low; "
                    "measure it again with mtcki roof, on an idle machine and an optimised build",
                    floor_us(), step_us));
  if (step_p10_us > 0 && step_p90_us > 1.2 * step_p10_us)
    out.push_back(fmt::format("steps take {:.0f} to {:.0f} us: something else runs here",
                              step_p10_us, step_p90_us));
  if (std::abs(overhead()) > 0.15)
    out.push_back(fmt::format("steps take {:+.0f} % while they are profiled", 100 * overhead()));
  if (roof && roof->clocks.mhz > 0 && clocks.mhz > 0 &&
      std::abs(clocks.mhz / roof->clocks.mhz - 1) > 0.05)
    out.push_back(
        str("the roof was measured at ", roof->clocks.text(), ", the step at ", clocks.text()));
  return out;
}

std::vector<TimelineOp> timeline_of(const std::vector<profiler::Event>& events, int64_t step) {
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (const profiler::Event& e : events)
    if (!e.captured && e.step == step)
      first = std::min(first, e.start_us), last = std::max(last, e.start_us + e.duration_us);
  std::vector<TimelineOp> out;
  for (const profiler::Event& e : events) {
    const bool meanwhile = e.step == profiler::kAnyStep && e.start_us >= first && e.start_us < last;
    if (e.captured || (e.step != step && !meanwhile)) continue;
    const bool update = e.stage == "update" || e.op.ends_with("_update_");
    out.push_back({e.op, e.module,
                   update       ? "update"
                   : e.backward ? "backward"
                                : "forward",
                   e.device == "cpu" ? e.thread : e.stream, e.start_us - first, e.duration_us,
                   e.memory});
  }
  std::ranges::stable_sort(out, {}, &TimelineOp::start_us);
  return out;
}

std::vector<OpCost> op_costs(const std::vector<profiler::Event>& events, int64_t steps,
                             const Roof* roof, int threads, const std::string& math,
                             const std::vector<profiler::Share>& shares) {
  struct Sum {
    OpCost row;
    std::map<int64_t, double> us, exclusive_us, host_us;  // by step
  };
  using Key = std::tuple<std::string, bool, std::string, std::string, std::string, std::string,
                         std::string, std::string, std::string>;
  std::map<Key, Sum> sums;
  for (size_t i = 0; i < events.size(); ++i) {
    const profiler::Event& e = events[i];
    if (e.captured) continue;
    const profiler::Share share = shares.empty() ? profiler::Share{e.self_us, 0} : shares[i];
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
    r.launches += share.launches;
    s.us[e.step] += e.self_us;
    s.exclusive_us[e.step] += share.exclusive_us;
    s.host_us[e.step] += e.host_us;
  }
  const double n = static_cast<double>(std::max<int64_t>(1, steps));
  // Steps in which the op did not run count as zero.
  const auto typical = [&](const std::map<int64_t, double>& by_step, double q = 0.5) {
    // Of work that no step is known for: its mean.
    if (const auto any = by_step.find(profiler::kAnyStep); any != by_step.end())
      return any->second / n;
    std::vector<double> v;
    for (const auto& [step, us] : by_step) v.push_back(us);
    v.resize(std::max(v.size(), static_cast<size_t>(steps)), 0.0);
    return quantile(std::move(v), q);
  };
  std::vector<OpCost> rows;
  for (auto& [key, s] : sums) {
    OpCost& r = s.row;
    r.us = typical(s.us);
    r.p10_us = typical(s.us, 0.1);
    r.p90_us = typical(s.us, 0.9);
    r.exclusive_us = typical(s.exclusive_us);
    r.host_us = typical(s.host_us);
    if (roof && (r.flops > 0 || r.bytes > 0)) {
      const std::string dtype = r.dtype == "f32" && math == "tf32" ? "tf32" : r.dtype;
      const double products =
          r.note.find("winograd") == std::string::npos ? r.flops : r.flops / kWinograd;
      const Roof::Floor floor = roof->floor(products / r.calls, r.bytes / r.calls, dtype, threads,
                                            std::max(1.0, r.launches / r.calls));
      r.floor_us = floor.us * r.calls / n;
      r.bound = floor.bound;
    }
    r.calls /= n;
    r.launches /= n;
    r.flops /= n;
    r.bytes /= n;
    rows.push_back(std::move(r));
  }
  sort_rows(rows);
  return rows;
}

std::vector<OpCost> grouped(const std::vector<OpCost>& rows, ProfileBy by, int64_t depth) {
  if (by == ProfileBy::layer) return rows;
  std::vector<OpCost> out;
  std::map<std::string, size_t> place;
  for (OpCost r : rows) {
    if (by == ProfileBy::module && depth > 0) {
      size_t end = 0;
      for (int64_t i = 0; i < depth && end != std::string::npos; ++i)
        end = r.module.find('.', i ? end + 1 : 0);
      r.module.resize(std::min(end, r.module.size()));
    }
    const std::string key = by == ProfileBy::op       ? r.op + "/" + r.pass
                            : by == ProfileBy::module ? r.module + "/" + r.pass
                                                      : r.stage;
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
    for (double OpCost::*field :
         {&OpCost::calls, &OpCost::us, &OpCost::p10_us, &OpCost::p90_us, &OpCost::exclusive_us,
          &OpCost::launches, &OpCost::host_us, &OpCost::flops, &OpCost::bytes, &OpCost::floor_us})
      to.*field += r.*field;
  }
  std::ranges::stable_sort(out, std::greater(), &OpCost::us);
  return out;
}

std::vector<OpChange> changes(const Profile& before, const Profile& after, ProfileBy by) {
  struct Range {
    double low = 0, high = 0;
  };
  std::map<std::string, std::pair<OpChange, std::array<Range, 2>>> pairs;
  for (const bool second : {false, true})
    for (const OpCost& r : grouped((second ? after : before).rows, by)) {
      std::string key = r.pass;
      if (by == ProfileBy::op) key += "\n" + r.op;
      if (by == ProfileBy::module) key += "\n" + r.module;
      if (by == ProfileBy::stage) key = r.stage;
      if (by == ProfileBy::layer)
        for (const std::string* s : {&r.op, &r.module, &r.stage, &r.shape, &r.dtype})
          key += "\n" + *s;
      auto& [change, ranges] = pairs[key];
      change.row = r;
      (second ? change.after_us : change.before_us) += r.us;
      (second ? change.in_after : change.in_before) = true;
      ranges[second].low += r.p10_us;
      ranges[second].high += r.p90_us;
    }
  std::vector<OpChange> out;
  for (auto& [key, pair] : pairs) {
    auto& [change, ranges] = pair;
    change.noise = change.in_before && change.in_after && ranges[0].high > 0 &&
                   ranges[1].high > 0 && ranges[0].low <= ranges[1].high &&
                   ranges[1].low <= ranges[0].high;
    out.push_back(std::move(change));
  }
  std::ranges::stable_sort(out, std::greater(),
                           [](const OpChange& c) { return std::abs(c.after_us - c.before_us); });
  return out;
}

// Both directions, field by field under the fields' own names.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OpCost, op, pass, module, stage, shape, dtype, layout, note,
                                   device, calls, us, p10_us, p90_us, exclusive_us, host_us,
                                   launches, flops, bytes, floor_us, bound)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TimelineOp, op, module, phase, track, start_us, us, memory)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Profile, step, model, device, machine, math, level, version,
                                   date, roof_date, batch, steps, threads, warmup, step_us,
                                   step_p10_us, step_p90_us, profiled_us, peak_memory, clocks,
                                   timeline)

nlohmann::json to_json(const Profile& p) {
  nlohmann::json out = p;
  out.update({{"schema", kProfileSchema},
              {"ops_us", p.ops_us()},
              {"floor_us", p.floor_us()},
              {"profile_overhead", p.overhead()},
              {"idle_us", p.idle_us()},
              {"launch_bound_us", p.launch_bound_us()},
              {"ops", p.rows}});
  if (p.roof) out["roof"] = to_json(*p.roof);
  return out;
}

Profile profile_from_json(const nlohmann::json& j, const std::string& file) {
  if (!j.is_object() || j.value("schema", nlohmann::json()) != kProfileSchema)
    throw DataError(str(file, ": not a profile (\"schema\": \"", kProfileSchema,
                        "\"); mtcki profile --json writes one"));
  try {
    // Fields that files of older versions do not have.
    nlohmann::json all{{"warmup", 0},
                       {"step_p10_us", 0},
                       {"step_p90_us", 0},
                       {"clocks", ClockRange{}},
                       {"timeline", nlohmann::json::array()}};
    all.update(j);
    Profile p = all;
    const nlohmann::json row{{"p10_us", 0}, {"p90_us", 0}, {"launches", 0}};
    for (const nlohmann::json& op : j.at("ops")) {
      nlohmann::json full = row;
      full.update(op);
      if (!full.contains("exclusive_us")) full["exclusive_us"] = full.at("us");
      p.rows.push_back(full);
    }
    if (j.contains("roof")) p.roof = roof_from_json(j["roof"], file);
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

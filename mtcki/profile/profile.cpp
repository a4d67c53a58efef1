#include "mtcki/profile/profile.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr char kSchema[] = "mtcki-profile/1";

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

nlohmann::json to_json(const Profile& p) {
  nlohmann::json rows = nlohmann::json::array();
  for (const OpCost& r : p.rows)
    rows.push_back({{"op", r.op},
                    {"pass", r.pass},
                    {"module", r.module},
                    {"stage", r.stage},
                    {"shape", r.shape},
                    {"dtype", r.dtype},
                    {"layout", r.layout},
                    {"note", r.note},
                    {"device", r.device},
                    {"calls", r.calls},
                    {"us", r.us},
                    {"host_us", r.host_us},
                    {"flops", r.flops},
                    {"bytes", r.bytes},
                    {"floor_us", r.floor_us},
                    {"bound", r.bound}});
  return {{"schema", kSchema},
          {"step", p.step},
          {"model", p.model},
          {"device", p.device},
          {"machine", p.machine},
          {"math", p.math},
          {"level", p.level},
          {"version", p.version},
          {"date", p.date},
          {"roof_date", p.roof_date},
          {"batch", p.batch},
          {"steps", p.steps},
          {"threads", p.threads},
          {"step_us", p.step_us},
          {"profiled_us", p.profiled_us},
          {"ops_us", p.ops_us()},
          {"floor_us", p.floor_us()},
          {"profile_overhead", p.overhead()},
          {"peak_memory", p.peak_memory},
          {"ops", std::move(rows)}};
}

Profile profile_from_json(const nlohmann::json& j, const std::string& file) {
  if (!j.is_object() || j.value("schema", nlohmann::json()) != kSchema)
    throw DataError(str(file, ": not a profile (\"schema\": \"", kSchema,
                        "\"); mtcki profile --json writes one"));
  try {
    Profile p;
    p.step = j.at("step");
    p.model = j.at("model");
    p.device = j.at("device");
    p.machine = j.at("machine");
    p.math = j.at("math");
    p.level = j.at("level");
    p.version = j.at("version");
    p.date = j.at("date");
    p.roof_date = j.at("roof_date");
    p.batch = j.at("batch");
    p.steps = j.at("steps");
    p.threads = j.at("threads");
    p.step_us = j.at("step_us");
    p.profiled_us = j.at("profiled_us");
    p.peak_memory = j.at("peak_memory");
    for (const nlohmann::json& o : j.at("ops")) {
      OpCost r;
      r.op = o.at("op");
      r.pass = o.at("pass");
      r.module = o.at("module");
      r.stage = o.at("stage");
      r.shape = o.at("shape");
      r.dtype = o.at("dtype");
      r.layout = o.at("layout");
      r.note = o.at("note");
      r.device = o.at("device");
      r.calls = o.at("calls");
      r.us = o.at("us");
      r.host_us = o.at("host_us");
      r.flops = o.at("flops");
      r.bytes = o.at("bytes");
      r.floor_us = o.at("floor_us");
      r.bound = o.at("bound");
      p.rows.push_back(std::move(r));
    }
    return p;
  } catch (const nlohmann::json::exception& e) {
    throw DataError(str(file, ": ", e.what()));
  }
}

Profile read_profile(const std::string& file) {
  if (!data::file_exists(file)) throw DataError(str(file, ": cannot be read"));
  return profile_from_json(data::read_json(file), file);
}

}  // namespace mtcki

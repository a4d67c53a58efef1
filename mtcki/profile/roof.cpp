#include "mtcki/profile/roof.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/host/build_info.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr char kRoofSchema[] = "mtcki-roof/1";

std::string machine_name(Device device) {
  return device.is_cuda() ? cuda::device_info(device.index).name : machine_info().cpu;
}

double value_of(const Roof& r, const std::string& name) {
  const auto it = r.values.find(name);
  return it == r.values.end() ? 0 : it->second;
}

}  // namespace

double Roof::scaled(const std::string& name, int n) const {
  const double all = value_of(*this, name), one = value_of(*this, name + "_1");
  if (one <= 0 || n >= threads) return all;
  return all > 0 ? std::min(all, n * one) : n * one;
}

double Roof::bandwidth_gbs(int n) const {
  return std::max(scaled("copy_gbs", n), scaled("triad_gbs", n));
}

double Roof::peak_gflops(const std::string& dtype, int n) const {
  const double gemm = scaled(dtype + "_gemm_gflops", n);
  const double fma = scaled(dtype + "_fma_gflops", n);
  const double peak = std::max(gemm, fma);
  return peak > 0 || dtype == "f32" ? peak : peak_gflops("f32", n);
}

double Roof::latency_us() const {
  return std::max({value_of(*this, "region_us"), value_of(*this, "graph_launch_us"), 0.0});
}

double Roof::memory_us(double bytes, int n) const {
  const double bandwidth = bandwidth_gbs(n);
  if (bandwidth <= 0) return 0;
  double us = 0, below = 0;  // below: what the caches so far hold
  for (const std::string level : {"l1", "l2", "l3"}) {
    const double holds = scaled(level + "_mb", n) * 1e6;
    const double gbs = scaled(level + "_gbs", n);
    if (holds <= below || gbs <= bandwidth) continue;
    us += std::clamp(bytes - below, 0.0, holds - below) / gbs * 1e-3;
    below = holds;
  }
  return us + std::max(0.0, bytes - below) / bandwidth * 1e-3;
}

Roof::Floor Roof::floor(double flops, double bytes, const std::string& dtype, int n,
                        double launches) const {
  const double peak = peak_gflops(dtype, n);
  const double compute_us = peak > 0 ? flops / peak * 1e-3 : 0, moved_us = memory_us(bytes, n);
  const double us = std::max(compute_us, moved_us), least = launches * latency_us();
  if (us < least) return {device == "cpu" ? us : least, "latency"};  // a CPU can do without a loop
  return {us, moved_us > compute_us ? "memory" : "compute"};
}

std::vector<std::string> Roof::doubts() const {
  std::vector<std::string> out;
  for (const auto& [name, best] : values) {
    const double one = value_of(*this, name + "_1");
    if (name.ends_with("s") && !name.ends_with("_us") && one > 1.1 * best)  // _gbs, _gflops
      out.push_back(
          fmt::format("{} is {:.1f} with {} threads, {:.1f} with one", name, best, threads, one));
    const auto median = typical.find(name);
    if (median == typical.end() || best <= 0 || median->second <= 0) continue;
    if (const double ratio = median->second / best; ratio > 1.2 || ratio < 1 / 1.2)
      out.push_back(
          fmt::format("{} is {:.4g} at best, {:.4g} typically", name, best, median->second));
  }
  if (clocks.low_mhz > 0 && clocks.high_mhz > 1.05 * clocks.low_mhz)
    out.push_back("the clock changed: " + clocks.text());
  return out;
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Roof, device, machine, date, version, libraries, threads, values,
                                   typical, clocks, missing)

nlohmann::json to_json(const Roof& r) {
  nlohmann::json out = r;
  out["schema"] = kRoofSchema;
  return out;
}

Roof roof_from_json(const nlohmann::json& j, const std::string& file) {
  if (!j.is_object() || j.value("schema", nlohmann::json()) != kRoofSchema)
    throw DataError(
        str(file, ": not a roof file (\"schema\": \"", kRoofSchema, "\"); mtcki roof writes one"));
  try {
    nlohmann::json all{{"typical", nlohmann::json::object()}, {"clocks", ClockRange{}}};
    all.update(j);  // files of older versions have neither
    return all.get<Roof>();
  } catch (const nlohmann::json::exception& e) {
    throw DataError(str(file, ": ", e.what(), "; mtcki roof writes a new one"));
  }
}

std::string roof_text(const Roof& r) {
  std::string out = fmt::format("roof of {}, {}", r.device, r.machine);
  if (r.device == "cpu") out += fmt::format(", {} threads", r.threads);
  if (r.clocks.readings > 0) out += ", " + r.clocks.text();
  out += "\n";
  for (const auto& [name, value] : r.values) {
    const auto median = r.typical.find(name);
    out += fmt::format("  {:<20} {:>12.2f}", name, value);
    out += median == r.typical.end() ? "\n" : fmt::format("  median {:.2f}\n", median->second);
  }
  for (const auto& [name, why] : r.missing)
    out += fmt::format("  {:<20} not measured: {}\n", name, why);
  return out;
}

std::string default_roof_path(Device device) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string folder = cache && *cache ? std::string(cache)
                             : home && *home ? std::string(home) + "/.cache"
                                             : std::string(".cache");
  std::string slug = "cpu";
  if (device.is_cuda()) {
    slug.clear();
    for (const char c : machine_name(device)) {
      const auto u = static_cast<unsigned char>(c);
      if (std::isalnum(u))
        slug += static_cast<char>(std::tolower(u));
      else if (!slug.empty() && slug.back() != '-')
        slug += '-';
    }
    while (!slug.empty() && slug.back() == '-') slug.pop_back();
  }
  return folder + "/mtcki/roof-" + slug + ".json";
}

void write_roof(const Roof& roof, const std::string& path) {
  data::make_directories(data::parent_directory(path));
  data::write_file_atomic(path, to_json(roof).dump(2) + "\n");
}

Roof read_roof(const std::string& path) {
  if (!data::file_exists(path))
    throw DataError(str("roof \"", path, "\": no such file; mtcki roof writes it"));
  return roof_from_json(data::read_json(path), path);
}

std::optional<Roof> find_roof(Device device, const std::string& path, std::string* why) {
  const std::string file = path.empty() ? default_roof_path(device) : path;
  std::error_code ec;
  if (path.empty() && !std::filesystem::exists(file, ec)) {
    *why = str("the roof of this machine was not measured yet, so there are no floors: mtcki roof",
               device.is_cuda() ? " --device cuda" : "");
    return {};
  }
  Roof roof = read_roof(file);
  // A file that was asked for by name counts, whatever it says.
  if (path.empty() && roof.machine != machine_name(device)) {
    *why = str(file, " is of another machine (", roof.machine, "): mtcki roof measures this one");
    return {};
  }
  return roof;
}

}  // namespace mtcki

#include "mtcki/host/clocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace mtcki {

namespace {

double cpu_mhz() {
  using Clock = std::chrono::steady_clock;
  constexpr int kRounds = 2000, kChain = 16, kTries = 8;
  double best = 0;
  for (int t = 0; t < kTries; ++t) {  // the best of them: some are interrupted
    uint64_t x = 1, y = 1;
    asm volatile("" : "+r"(x), "+r"(y));
    const auto start = Clock::now();
    for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
      for (int k = 0; k < kChain; ++k) {
        x += y;
        asm volatile("" : "+r"(x), "+r"(y));  // each addition waits for the one before it
      }
    }
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    if (us > 0) best = std::max(best, kRounds * kChain / us);
  }
  return best;
}

}  // namespace

cuda::Clocks read_clocks(Device device) {
  if (device.is_cuda()) return cuda::read_clocks(device.index);
  cuda::Clocks c;
  c.mhz = cpu_mhz();
  return c;
}

void ClockRange::add(const cuda::Clocks& c) {
  if (c.mhz <= 0) return;
  low_mhz = readings ? std::min(low_mhz, c.mhz) : c.mhz;
  high_mhz = std::max(high_mhz, c.mhz);
  mhz = (mhz * static_cast<double>(readings) + c.mhz) / static_cast<double>(readings + 1);
  ++readings;
  memory_mhz = c.memory_mhz;
  watts = c.watts;
  celsius = c.celsius;
  limit = c.limit;
}

std::string ClockRange::text() const {
  if (readings == 0) return "";
  std::string out = fmt::format("{:.2f} GHz", mhz * 1e-3);
  if (high_mhz > 1.03 * low_mhz)
    out += fmt::format(" ({:.2f} to {:.2f})", low_mhz * 1e-3, high_mhz * 1e-3);
  if (watts > 0) out += fmt::format(", {:.0f} W, {:.0f} C", watts, celsius);
  if (!limit.empty()) out += ", held down by " + limit;
  return out;
}

void to_json(nlohmann::json& j, const ClockRange& c) {
  j = {{"mhz", c.mhz},           {"low_mhz", c.low_mhz},
       {"high_mhz", c.high_mhz}, {"memory_mhz", c.memory_mhz},
       {"watts", c.watts},       {"celsius", c.celsius},
       {"limit", c.limit},       {"readings", c.readings}};
}

void from_json(const nlohmann::json& j, ClockRange& c) {
  j.at("mhz").get_to(c.mhz);
  j.at("low_mhz").get_to(c.low_mhz);
  j.at("high_mhz").get_to(c.high_mhz);
  j.at("memory_mhz").get_to(c.memory_mhz);
  j.at("watts").get_to(c.watts);
  j.at("celsius").get_to(c.celsius);
  j.at("limit").get_to(c.limit);
  j.at("readings").get_to(c.readings);
}

}  // namespace mtcki

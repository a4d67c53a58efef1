// The roof: what a machine can do at most, measured on it. `mtcki roof` writes it, `mtcki profile`
// reads it and says how far each op is from it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mtcki/host/clocks.h"
#include "tensor/device.h"

namespace mtcki {

struct Roof {
  std::string device;   // "cpu" or "cuda:0"
  std::string machine;  // model name of the CPU or GPU
  std::string date;     // "2026-01-31T12:00:00Z"
  std::string version, libraries;
  int threads = 1;  // of the values without a suffix (CPU)

  // What was measured. CPU, with all threads, and with the suffix "_1" on one:
  //   copy_gbs, triad_gbs            bytes read plus written, 1e9 per second
  //   l1_gbs, l1_mb, l2_.., l3_..    a copy that stays in the cache, and its size, 1e6 bytes
  //   f32_fma_gflops                 multiply-adds in registers
  //   f32_gemm_gflops, bf16_gemm_gflops
  //   region_us                      an empty parallel loop
  // CUDA: copy_gbs, l2_gbs, l2_mb, f32_gemm_gflops, tf32_gemm_gflops, bf16_gemm_gflops, launch_us (a small kernel,
  //   one after the other), launch_host_us (of the host), graph_launch_us (inside a graph),
  //   event_us (between two events with nothing between)
  std::map<std::string, double> values;
  std::map<std::string, double> typical;  // the median of the repeats, of which values has the best
  ClockRange clocks;                      // while it was measured
  std::map<std::string, std::string> missing;  // what could not be measured, and why

  // A value at `threads` threads: what that many could do alone, and no more than all can together.
  double scaled(const std::string& name, int threads) const;
  double bandwidth_gbs(int threads) const;  // of memory
  // At least: what the caches can hold may come out of them.
  double memory_us(double bytes, int threads) const;
  // dtype "f32", "bf16", "f64" or "tf32"; one that was not measured has the f32 value.
  double peak_gflops(const std::string& dtype, int threads) const;
  double latency_us() const;  // the least time of a kernel or a parallel loop
  // max(flops / peak, memory_us), and on a GPU no less than its launches. bound: "compute",
  // "memory", or "latency" when that is less than the least time of the launches.
  struct Floor {
    double us = 0;
    std::string bound;
  };
  Floor floor(double flops, double bytes, const std::string& dtype, int threads,
              double launches = 1) const;
  // Why its values are doubtful, one line each: something else ran meanwhile.
  std::vector<std::string> doubts() const;
};

nlohmann::json to_json(const Roof& roof);
// DataError, naming `file`, when it is none.
Roof roof_from_json(const nlohmann::json& j, const std::string& file);
std::string roof_text(const Roof& roof);  // for people

// $XDG_CACHE_HOME/mtcki or ~/.cache/mtcki, then roof-cpu.json or roof-nvidia-h200.json.
std::string default_roof_path(Device device);
void write_roof(const Roof& roof, const std::string& path);  // makes the folder
Roof read_roof(const std::string& path);
// The roof of this machine, or nothing and the reason: no file yet, or one of another machine.
std::optional<Roof> find_roof(Device device, const std::string& path, std::string* why);

struct RoofOptions {
  Device device;
  int64_t megabytes = 256;  // of each array that is copied (CUDA: four times as much)
  int64_t gemm = 0;         // size of the products; 0: 2048 on the CPU, 8192 on the GPU
  int repeats = 5;          // the best of them counts, the median is kept
};
// Takes seconds. Uses the threads that are set, and one.
Roof measure_roof(const RoofOptions& options);

// Multiply-adds in registers on `threads` threads, `steps` each; returns the FLOPs that were done.
double fma_loop(int threads, int64_t steps);

}  // namespace mtcki

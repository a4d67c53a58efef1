// What the flags of several commands have in common: their checks, whose errors say what to write,
// their help, and those that say where and how to compute.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/device.h"

namespace mtcki::cli {

// They add nothing to the help, whose texts name the choices.
CLI::Validator one_of(const std::vector<std::string>& choices);
CLI::Validator range(int64_t low, int64_t high);
CLI::Validator count();  // 0 or more

// Help of flags that mean the same in every command.
extern const char kNameMap[], kWeightsKey[], kDataSize[], kDataFit[], kSkipBad[];

// What to write instead, in the form of our own messages.
std::string parse_error(const CLI::App* app, const CLI::ParseError& e);

// --classes, --channels and --size of a network.
void add_input_shape(CLI::App* app, int64_t* classes, int64_t* channels, int64_t* size);
// --mean and --std as they were given: as many, finite, std above 0; UsageError.
void check_normalization(const std::vector<double>& mean, const std::vector<double>& std);

struct ComputeOptions {
  std::string device = "auto";
  int64_t threads = 0;  // 0: OMP_NUM_THREADS, or all cores
  std::string precision = "f32", conv = "auto", graph = "auto";
  bool deterministic = true, autotune = false;
  bool device_given = false;  // "auto" by name, not by default
  bool recompute = false;
};
void add_compute(CLI::App* app, ComputeOptions* o);
void add_recompute(CLI::App* app, ComputeOptions* o);
// Threads, device, choice of kernels. "auto" that was asked for and falls back to the CPU says why
// in one line; `mtcki info` always does.
Device apply(const ComputeOptions& options);
// "device: cuda:0 (NVIDIA H200); math: bf16", "device: cpu, 2 threads; math: f32 strict, direct
// convolutions"
std::string banner(Device device, const std::string& precision);

}  // namespace mtcki::cli

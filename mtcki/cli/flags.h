// What the flags of several commands have in common: their checks, whose errors say what to write,
// their help, and those that say where and how to compute.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "tensor/device.h"

namespace mtcki::cli {

// To stdout. What could not be written is an error at the end (main.cpp), not here.
template <class... T>
void put(fmt::format_string<T...> format, T&&... values) {
  std::fputs(fmt::format(format, std::forward<T>(values)...).c_str(), stdout);
}

// They add nothing to the help, whose texts name the choices.
CLI::Validator one_of(const std::vector<std::string>& choices);
CLI::Validator range(int64_t low, int64_t high);
CLI::Validator count();  // 0 or more

// Help of flags that mean the same in every command.
extern const char kDataSize[], kDataFit[], kSkipBad[];

// An option whose default stands in the help: a whole number of a range, one of some texts.
template <class T>
void add_number(CLI::App* app, const char* name, T* value, const char* help, int64_t low,
                int64_t high) {
  app->add_option(name, *value, help)->check(range(low, high))->capture_default_str();
}
void add_choice(CLI::App* app, const char* name, std::string* value, const char* help,
                const std::vector<std::string>& choices);

// What to write instead, in the form of our own messages.
std::string parse_error(const CLI::App* app, const CLI::ParseError& e);

// --name-map and --weights-key of a weight file.
void add_weight_names(CLI::App* app, std::string* name_map, std::string* weights_key);
// --mean and --std, lists.
void add_normalization(CLI::App* app, std::vector<double>* mean, std::vector<double>* std,
                       const char* mean_help);
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

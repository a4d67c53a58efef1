// What this binary is and where it runs: `mtcki info`, `--version`, manifest.json, the report.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace mtcki {

struct BuildInfo {
  std::string version;     // "0.1.0"
  std::string git;         // "1a2b3c4d5e6f", "-dirty" appended; "unknown" outside a checkout
  std::string build_type;  // "Release"
  std::string compiler;    // "GNU 12.2.0"
  std::string flags;       // what changes results or speed
  std::string onednn;      // version, or why it is off
  std::string cuda;        // why it is off
};
BuildInfo build_info();

struct MachineInfo {
  std::string cpu;           // model name
  int cores = 0;             // that this process may use
  std::string instructions;  // "AVX2 FMA"
  size_t memory_bytes = 0;
  std::string system;  // "Linux 6.1.0 x86_64"
};
MachineInfo machine_info();

std::string utc_now();  // "2026-01-31T12:00:00Z"

// What the last bits of a result depend on, as (label, value): build, libraries, threads, kernels,
// instructions.
std::vector<std::pair<std::string, std::string>> numerics();

// Both as (label, value) lines, in the order that `mtcki info` shows.
std::vector<std::pair<std::string, std::string>> info_lines();

}  // namespace mtcki

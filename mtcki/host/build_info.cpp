#include "mtcki/host/build_info.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "tensor/allocator.h"
#include "tensor/comm.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/layout.h"
#include "tensor/ops/conv/amx_tiles.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/parallel.h"

#ifndef MTCKI_VERSION  // built without the project's CMake
#define MTCKI_VERSION "unknown"
#define MTCKI_GIT "unknown"
#define MTCKI_BUILD_TYPE "unknown"
#define MTCKI_COMPILER "unknown"
#define MTCKI_FLAGS "unknown"
#define MTCKI_ARCH "unknown"
#endif

namespace mtcki {

BuildInfo build_info() {
  BuildInfo b{.version = MTCKI_VERSION,
              .git = MTCKI_GIT,
              .build_type = MTCKI_BUILD_TYPE,
              .compiler = MTCKI_COMPILER,
              .flags = MTCKI_FLAGS,
              .onednn = onednn_available() ? onednn_version() : "not built in"};
  const std::string versions = cuda::library_versions();
  b.cuda = versions == "none" ? "not built in: this version has CPU kernels only" : versions;
  return b;
}

MachineInfo machine_info() {
  MachineInfo m;
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, 10, "model name") == 0) {
      m.cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  if (m.cpu.empty()) m.cpu = "unknown";
  cpu_set_t set;
  CPU_ZERO(&set);
  m.cores = sched_getaffinity(0, sizeof set, &set) == 0
                ? CPU_COUNT(&set)
                : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
#if defined(__x86_64__)
  const auto add = [&m](bool on, const char* name) {
    if (on) m.instructions += (m.instructions.empty() ? "" : " ") + std::string(name);
  };
  add(__builtin_cpu_supports("avx2"), "AVX2");
  add(__builtin_cpu_supports("fma"), "FMA");
  add(__builtin_cpu_supports("avx512f"), "AVX-512");
  add(__builtin_cpu_supports("avx512bf16"), "AVX-512-bf16");
  add(amx::available(), "AMX-bf16");
#endif
  m.memory_bytes =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  utsname u{};
  if (uname(&u) == 0) m.system = str(u.sysname, " ", u.release, " ", u.machine);
  return m;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm tm{};
  gmtime_r(&now, &tm);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return buffer;
}

namespace {

// "NVIDIA H200, sm_90, 132 multiprocessors, 139.8 GiB, driver for CUDA 13.0", or why there is none.
std::string gpu_line() {
  const cuda::Availability& a = cuda::availability();
  if (!a.usable) return "none: " + a.why;
  const cuda::DeviceInfo d = cuda::device_info(0);
  std::string text = str(d.name, ", sm_", d.major, d.minor, ", ", d.multiprocessors,
                         " multiprocessors, ", human_bytes(d.memory));
  if (d.driver_version > 0)
    text += str(", driver for CUDA ", d.driver_version / 1000, ".", d.driver_version % 1000 / 10);
  return a.devices > 1 ? str(text, " (and ", a.devices - 1, " more)") : text;
}

const char* kernels() {
  return math_settings().cpu_kernels == CpuKernels::automatic ? "automatic"
         : math_settings().cpu_kernels == CpuKernels::onednn  ? "oneDNN"
                                                              : "built-in";
}

}  // namespace

std::vector<std::pair<std::string, std::string>> numerics() {
  const BuildInfo b = build_info();
  const char* const isa = std::getenv("ONEDNN_MAX_CPU_ISA");
  return {{"version", b.version + " (" + b.git + ")"},
          {"build", str(b.build_type, ", ", b.compiler, ", ", b.flags)},
          {"oneDNN", isa ? str(b.onednn, ", at most ", isa) : b.onednn},
          {"CUDA", b.cuda},
          {"threads", str(num_threads())},
          {"kernels", kernels()},
          {"instructions", machine_info().instructions}};
}

std::vector<std::pair<std::string, std::string>> info_lines() {
  const BuildInfo b = build_info();
  const MachineInfo m = machine_info();
  return {{"version", b.version},
          {"git", b.git},
          {"build", b.build_type + ", " + b.compiler},
          {"flags", b.flags},
          {"built for", *MTCKI_ARCH ? MTCKI_ARCH : "any CPU of this family"},
          {"oneDNN", b.onednn},
          {"CUDA", b.cuda},
          {"GPU", gpu_line()},
          {"MPI", mpi_version()},
          {"NCCL", nccl_version()},
          {"CPU", str(m.cpu, ", ", m.cores, m.cores == 1 ? " core" : " cores")},
          {"instructions", m.instructions.empty() ? "baseline" : m.instructions},
          {"memory", human_bytes(m.memory_bytes)},
          {"system", m.system},
          {"threads", str(num_threads())},
          {"kernels", str(kernels(), math_settings().winograd ? "" : ", direct convolutions",
                          " (MTCKI_CPU_KERNELS=auto|onednn|builtin, --conv auto|direct), channel "
                          "block ",
                          kChannelBlock)}};
}

}  // namespace mtcki

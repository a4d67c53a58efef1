#include "tensor/cuda/clocks.h"

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <type_traits>

namespace mtcki::cuda {

namespace {

// The few functions of libnvidia-ml that are used, which comes with the driver; its header does not
// come with every toolkit. Names, numbers and types are those of nvml.h.
struct Nvml {
  using Handle = void*;
  int (*init)() = nullptr;
  int (*handle)(const char* bus, Handle*) = nullptr;
  int (*clock)(Handle, int type, unsigned* mhz) = nullptr;
  int (*power)(Handle, unsigned* milliwatts) = nullptr;
  int (*temperature)(Handle, int sensor, unsigned* celsius) = nullptr;
  int (*reasons)(Handle, unsigned long long* bits) = nullptr;
  bool usable = false;

  Nvml() {
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    usable = find(init, "nvmlInit_v2") && find(handle, "nvmlDeviceGetHandleByPciBusId_v2") &&
             find(clock, "nvmlDeviceGetClockInfo") && find(power, "nvmlDeviceGetPowerUsage") &&
             find(temperature, "nvmlDeviceGetTemperature") &&
             find(reasons, "nvmlDeviceGetCurrentClocksThrottleReasons") && init() == 0;
  }
};

}  // namespace

Clocks read_clocks(int device) {
  static const Nvml nvml;
  Clocks c;
  char bus[32] = "";
  Nvml::Handle handle = nullptr;
  if (!nvml.usable || cudaDeviceGetPCIBusId(bus, sizeof bus, device) != cudaSuccess ||
      nvml.handle(bus, &handle) != 0)
    return c;
  constexpr int kSm = 1, kMemory = 2, kGpuSensor = 0;
  unsigned value = 0;
  if (nvml.clock(handle, kSm, &value) == 0) c.mhz = value;
  if (nvml.clock(handle, kMemory, &value) == 0) c.memory_mhz = value;
  if (nvml.power(handle, &value) == 0) c.watts = value * 1e-3;
  if (nvml.temperature(handle, kGpuSensor, &value) == 0) c.celsius = value;
  constexpr unsigned long long kPower = 0x4 | 0x80, kHeat = 0x20 | 0x40, kSlowdown = 0x8;
  unsigned long long bits = 0;
  if (nvml.reasons(handle, &bits) == 0)
    c.limit = bits & kHeat ? "heat" : bits & kPower ? "power" : bits & kSlowdown ? "slowdown" : "";
  return c;
}

}  // namespace mtcki::cuda

// Internal to the emulated device: its memory and its only queue.
#pragma once

#include <functional>

namespace mtcki::cuda {

// Device memory is out of the host's reach (PROT_NONE) except while one of these lives: a host
// function that reads a device pointer ends in a segmentation fault, as it would with a GPU.
// Under AddressSanitizer every block is a heap block instead, so that kernels are bounds-checked.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Runs the work, or appends it to the graph that is being captured.
void issue(std::function<void()> work);

}  // namespace mtcki::cuda

#include "tensor/device.h"

#include "tensor/error.h"

namespace mtcki {

Device parse_device(const std::string& text, std::string* why) {
  const std::string reason = "this build has no CUDA kernels";
  if (text == "cpu") return Device::cpu();
  if (text == "auto") {
    if (why) *why = "using the CPU: " + reason;
    return Device::cpu();
  }
  if (text.rfind("cuda", 0) == 0)
    throw DeviceError("--device " + text + ": " + reason + "; use --device cpu");
  throw DeviceError("--device " + text + ": expected auto, cpu, cuda or cuda:<index>");
}

}  // namespace mtcki

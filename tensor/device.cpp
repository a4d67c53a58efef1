#include "tensor/device.h"

#include <cctype>

#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki {

Device parse_device(const std::string& text, std::string* why) {
  if (text == "cpu") return Device::cpu();
  const bool automatic = text == "auto";
  int index = 0;
  if (!automatic) {
    const std::string digits = text.size() > 5 ? text.substr(5) : "";
    bool good = text == "cuda" || (text.rfind("cuda:", 0) == 0 && !digits.empty() && digits.size() < 4);
    for (const char c : digits) good = good && std::isdigit(static_cast<unsigned char>(c));
    if (!good) throw DeviceError("--device " + text + ": expected auto, cpu, cuda or cuda:<index>");
    if (!digits.empty()) index = std::stoi(digits);
  }
  try {
    cuda::use_device(index);
    return Device::cuda(index);
  } catch (const DeviceError& e) {
    if (!automatic) throw DeviceError("--device " + text + ": " + e.what() + "; use --device cpu");
    if (why) *why = std::string("using the CPU: ") + e.what();
    return Device::cpu();
  }
}

}  // namespace mtcki

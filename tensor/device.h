// Where a tensor's bytes are.
#pragma once

#include <string>

namespace mtcki {

struct Device {
  enum class Type { cpu, cuda };
  Type type = Type::cpu;
  int index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index = 0) { return {Type::cuda, index}; }
  bool is_cpu() const { return type == Type::cpu; }
  bool is_cuda() const { return type == Type::cuda; }
  std::string to_string() const {
    return is_cpu() ? "cpu" : "cuda:" + std::to_string(index);
  }
  friend bool operator==(const Device& a, const Device& b) {
    return a.type == b.type && a.index == b.index;
  }
  friend bool operator!=(const Device& a, const Device& b) { return !(a == b); }
};

// "auto", "cpu", "cuda", "cuda:1" -> Device. Throws DeviceError that says why a GPU cannot be used;
// "auto" falls back to the CPU and puts the reason into *why (may be null).
Device parse_device(const std::string& text, std::string* why = nullptr);

}  // namespace mtcki

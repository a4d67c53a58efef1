// State dicts inside state dicts, by prefix.
#pragma once

#include <string>

#include "nn/module.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

// Adds every entry of `part` to `all` as prefix + name.
inline void append(nn::StateDict& all, const nn::StateDict& part, const std::string& prefix) {
  for (const auto& [name, tensor] : part) all.emplace_back(prefix + name, tensor);
}

// The entries of `all` whose names begin with prefix, without it.
inline nn::StateDict under(const nn::StateDict& all, const std::string& prefix) {
  nn::StateDict out;
  for (const auto& [name, tensor] : all)
    if (name.compare(0, prefix.size(), prefix) == 0)
      out.emplace_back(name.substr(prefix.size()), tensor);
  return out;
}

// The entry called name, or an undefined tensor.
inline Tensor entry(const nn::StateDict& all, const std::string& name) {
  for (const auto& [key, tensor] : all)
    if (key == name) return tensor;
  return {};
}

// A floating-point entry with a value that is not finite: its name, or "" when there is none.
inline std::string not_finite(const nn::StateDict& all) {
  for (const auto& [name, tensor] : all)
    if (is_floating(tensor.dtype()) && !all_finite(tensor)) return name;
  return "";
}

}  // namespace mtcki

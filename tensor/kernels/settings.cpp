#include "tensor/kernels/settings.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "tensor/error.h"

namespace mtcki {

namespace {

void check_available(CpuKernels kernels, const char* who) {
  if (kernels == CpuKernels::onednn && !onednn_available())
    throw UsageError(str(who, ": this build has no oneDNN: use auto or builtin"));
}

// The choice that the variable names among three, of which the first is the default.
template <class Choice>
Choice from_environment(const char* variable, const std::pair<const char*, Choice> (&choices)[3]) {
  const char* text = std::getenv(variable);
  const std::string value = text ? text : "";
  if (value.empty()) return choices[0].second;
  for (const auto& [name, choice] : choices)
    if (value == name) return choice;
  throw UsageError(str(variable, "=", value, ": use ", choices[0].first, ", ", choices[1].first,
                       " or ", choices[2].first));
}

MathSettings initial() {
  MathSettings s{
      from_environment<CpuKernels>("MTCKI_CPU_KERNELS", {{"auto", CpuKernels::automatic},
                                                         {"onednn", CpuKernels::onednn},
                                                         {"builtin", CpuKernels::builtin}}),
      from_environment<CudaConv>("MTCKI_CONV", {{"auto", CudaConv::automatic},
                                                {"cudnn", CudaConv::cudnn},
                                                {"im2col", CudaConv::im2col}})};
  check_available(s.cpu_kernels, "MTCKI_CPU_KERNELS=onednn");
  return s;
}

}  // namespace

MathSettings& math_settings() {
  static MathSettings settings = initial();
  return settings;
}

void set_cpu_kernels(CpuKernels kernels) {
  check_available(kernels, "set_cpu_kernels");
  math_settings().cpu_kernels = kernels;
}

}  // namespace mtcki

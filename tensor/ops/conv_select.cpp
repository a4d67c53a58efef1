#include "tensor/ops/conv_select.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr ConvKernel kDirect{"direct", conv_direct::forward, conv_direct::grad_input,
                             conv_direct::grad_weight};
constexpr ConvKernel kWinograd{"winograd", conv_winograd::forward, conv_winograd::grad_input,
                               conv_winograd::grad_weight};
constexpr ConvKernel kOnednn{"onednn", conv_onednn::forward, conv_onednn::grad_input,
                             conv_onednn::grad_weight};

CpuKernels from_environment() {
  const char* text = std::getenv("MTCKI_CPU_KERNELS");
  const std::string value = text ? text : "auto";
  if (value == "auto" || value.empty()) return CpuKernels::automatic;
  if (value == "builtin") return CpuKernels::builtin;
  if (value != "onednn")
    throw UsageError(str("MTCKI_CPU_KERNELS=", value, ": use auto, onednn or builtin"));
  if (!onednn_available())
    throw UsageError("MTCKI_CPU_KERNELS=onednn, but this build has no oneDNN: use auto or builtin");
  return CpuKernels::onednn;
}

std::atomic<CpuKernels>& setting() {
  static std::atomic<CpuKernels> value{from_environment()};
  return value;
}

}  // namespace

void set_cpu_kernels(CpuKernels kernels) {
  if (kernels == CpuKernels::onednn && !onednn_available())
    throw UsageError("set_cpu_kernels: this build has no oneDNN: use automatic or builtin");
  setting() = kernels;
}

CpuKernels cpu_kernels() { return setting(); }

const ConvKernel& select_conv(const ConvProblem& d, ConvPass) {
  if (cpu_kernels() == CpuKernels::onednn) return kOnednn;
  if (cpu_kernels() == CpuKernels::builtin || !onednn_available())
    return conv_winograd::applies(d) ? kWinograd : kDirect;
  return conv_winograd::applies(d) ? kWinograd : kOnednn;
}

const GemmKernel& select_gemm(int64_t, int64_t, int64_t) {
  static constexpr GemmKernel onednn{"onednn", conv_onednn::gemm};
  static constexpr GemmKernel builtin{"builtin", builtin_gemm<float>};
  return cpu_kernels() == CpuKernels::builtin || !onednn_available() ? builtin : onednn;
}

}  // namespace mtcki

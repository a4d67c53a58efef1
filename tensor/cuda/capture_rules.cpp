#include "tensor/context.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace mtcki::cuda {

void forbid_while_capturing(const char* what) {
  if (!capturing()) return;
  const std::string where = context_path();
  throw CaptureError(str("StepGraph: ", what, " is not possible inside a captured step",
                         where.empty() ? "" : " (in " + where + ")",
                         "; keep the value on the device, or read it after the step"));
}

}  // namespace mtcki::cuda

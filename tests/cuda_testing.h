// Tests that need a GPU: a real one, or the emulated one of build/tests/emulated_*. Where there is
// none they are skipped by name; MTCKI_REQUIRE_GPU=1 makes that a failure.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tensor/cuda/runtime.h"
#include "tensor/tensor.h"

namespace mtcki::testing {

inline const Device kGpu = Device::cuda(0);

inline bool gpu_required() {
  const char* text = std::getenv("MTCKI_REQUIRE_GPU");
  return text && std::string(text) == "1";
}

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::Availability& a = cuda::availability();
    if (a.usable) return cuda::use_device(0);
    if (gpu_required()) FAIL() << "MTCKI_REQUIRE_GPU=1, but " << a.why;
    GTEST_SKIP() << "no GPU: " << a.why;
  }
};

}  // namespace mtcki::testing

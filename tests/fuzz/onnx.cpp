#include "tests/fuzz/parsers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return mtcki::testing::fuzz_one("onnx", data, size);
}

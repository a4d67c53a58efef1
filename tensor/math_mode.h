// How f32 products may round their inputs.
#pragma once

#include <cstdint>

namespace mtcki {

// strict: f32 in, f32 multiplied and added. tf32: the tensor cores of a GPU may round the inputs of
// each product to 10 mantissa bits (sums stay f32). Other dtypes and the CPU take no notice.
enum class Math : uint8_t { strict, tf32 };

}  // namespace mtcki

// In which number format a network computes. It is a value given to a model (Module::set_precision)
// and kept by every module of it; nothing is global.
//
//   f32   convolutions and products in strict f32 (the default)
//   tf32  f32 tensors whose products a GPU may round to TF32; the same as f32 on the CPU
//   bf16  activations and the operands of convolutions and hidden linear layers in bf16, sums f32
//
// Parameters, batch-norm statistics, features, logits and images are f32 in all three, and so are
// gradients of parameters, except that those of convolutions may be bf16 on a GPU under bf16. The
// classifying layer computes in f32 (tf32): it is small and its result is the logits.
#pragma once

#include <cstdint>
#include <string>

namespace mtcki::nn {

enum class Precision : uint8_t { f32, tf32, bf16 };

const char* name_of(Precision precision);  // "f32", "tf32", "bf16"
// Throws UsageError with the known names, and the nearest one.
Precision parse_precision(const std::string& name);

}  // namespace mtcki::nn

#include "nn/precision.h"

#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki::nn {

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::f32:
      return "f32";
    case Precision::tf32:
      return "tf32";
    case Precision::bf16:
      return "bf16";
  }
  return "?";
}

Precision parse_precision(const std::string& name) {
  for (const Precision p : {Precision::f32, Precision::tf32, Precision::bf16})
    if (name == name_of(p)) return p;
  throw UsageError(str("unknown precision '", name, "'",
                       did_you_mean(name, {"f32", "tf32", "bf16"}), ". Known: f32 tf32 bf16"));
}

}  // namespace mtcki::nn

// Element types of a Tensor, and the dispatch macros that turn a run-time dtype into a C++ type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/error.h"
#include "tensor/host_device.h"

namespace mtcki {

enum class DType : uint8_t { f32, f64, bf16, i64, i32, u8, boolean };

// bfloat16: the upper half of an IEEE binary32, rounded to nearest even.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  MTCKI_HD explicit bfloat16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    uint32_t u;
    std::memcpy(&u, &value, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);  // keep a NaN a NaN
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
#endif
  }
  MTCKI_HD operator float() const {  // NOLINT: reads like a float on purpose
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &u, 4);
    return value;
  }
};

size_t size_of(DType dtype);
const char* name_of(DType dtype);  // "f32", "f64", "bf16", "i64", "i32", "u8", "bool"
inline bool is_floating(DType d) { return d == DType::f32 || d == DType::f64 || d == DType::bf16; }

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of<bfloat16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of<int64_t> { static constexpr DType value = DType::i64; };
template <> struct dtype_of<int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of<uint8_t> { static constexpr DType value = DType::u8; };
template <> struct dtype_of<bool> { static constexpr DType value = DType::boolean; };

// MTCKI_DISPATCH_FLOAT(x.dtype(), "relu", T, { kernel<T>(...); });   T = float or double.
// bf16 tensors are computed in f32 by the op's .cpp before they reach a CPU kernel.
#define MTCKI_DISPATCH_FLOAT(dtype_, op_, T_, ...)                                               \
  do {                                                                                           \
    const ::mtcki::DType mtcki_d_ = (dtype_);                                                    \
    if (mtcki_d_ == ::mtcki::DType::f32) {                                                       \
      using T_ = float;                                                                          \
      __VA_ARGS__                                                                                \
    } else if (mtcki_d_ == ::mtcki::DType::f64) {                                                \
      using T_ = double;                                                                         \
      __VA_ARGS__                                                                                \
    } else {                                                                                     \
      throw ::mtcki::DTypeError(                                                                 \
          ::mtcki::str(op_, ": needs f32 or f64, got ", ::mtcki::name_of(mtcki_d_)));            \
    }                                                                                            \
  } while (0)

// Every dtype; T is the C++ storage type.
#define MTCKI_DISPATCH_ALL(dtype_, T_, ...)                                                      \
  do {                                                                                           \
    switch (dtype_) {                                                                            \
      case ::mtcki::DType::f32: { using T_ = float; __VA_ARGS__ } break;                         \
      case ::mtcki::DType::f64: { using T_ = double; __VA_ARGS__ } break;                        \
      case ::mtcki::DType::bf16: { using T_ = ::mtcki::bfloat16; __VA_ARGS__ } break;            \
      case ::mtcki::DType::i64: { using T_ = int64_t; __VA_ARGS__ } break;                       \
      case ::mtcki::DType::i32: { using T_ = int32_t; __VA_ARGS__ } break;                       \
      case ::mtcki::DType::u8: { using T_ = uint8_t; __VA_ARGS__ } break;                        \
      case ::mtcki::DType::boolean: { using T_ = bool; __VA_ARGS__ } break;                      \
    }                                                                                            \
  } while (0)

}  // namespace mtcki

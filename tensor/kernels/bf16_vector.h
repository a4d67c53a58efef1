// Internal: bf16 in memory beside f32 in registers, for GCC/Clang vector types. F is a vector of
// floats; U and H are vectors of as many uint32_t and uint16_t.
#pragma once

namespace mtcki {

template <class F, class U, class H>
[[gnu::always_inline]] inline F widened_bf16(const H& half) {
  return reinterpret_cast<F>(__builtin_convertvector(half, U) << 16);
}

// Rounds as bfloat16(float): to nearest even, a NaN stays one.
template <class H, class U, class F>
[[gnu::always_inline]] inline H rounded_bf16(const F& v) {
  const auto u = reinterpret_cast<U>(v);
  const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const U bits = v == v ? rounded : (u >> 16) | 0x40u;
  return __builtin_convertvector(bits, H);
}

}  // namespace mtcki

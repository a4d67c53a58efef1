// Internal: one register of floats or doubles as a GCC/Clang vector type, so that one source makes
// AVX2 and AVX-512 code. a * b + c contracts to a fused multiply-add (-ffp-contract=fast).
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"
#include "tensor/kernels/bf16_vector.h"

#if defined(__clang__)
#define MTCKI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MTCKI_UNROLL _Pragma("GCC unroll 32")
#endif

namespace mtcki {

#if defined(__AVX512F__)
inline constexpr int kSimdBytes = 64, kSimdRegisters = 32;
#else
inline constexpr int kSimdBytes = 32, kSimdRegisters = 16;
#endif

template <std::floating_point T>
struct Simd {
  typedef T Vector __attribute__((vector_size(kSimdBytes)));
  static constexpr int width = kSimdBytes / static_cast<int>(sizeof(T));
};
using FloatVector = Simd<float>::Vector;

template <class T>
inline __attribute__((always_inline)) typename Simd<T>::Vector load(const T* p) {
  typename Simd<T>::Vector v;
  std::memcpy(&v, p, sizeof v);  // one unaligned load
  return v;
}
// A load whose value is used several times. Without the barrier GCC may fold the load into every
// multiply-add that uses it, and a kernel with few of those per load waits for the load ports.
template <class T>
inline __attribute__((always_inline)) typename Simd<T>::Vector load_once(const T* p) {
  auto v = load(p);
#if defined(__AVX__)
  __asm__("" : "+v"(v));
#endif
  return v;
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, typename Simd<T>::Vector v) {
  std::memcpy(p, &v, sizeof v);
}

// bf16 in memory.
typedef uint16_t Bf16Vector __attribute__((vector_size(kSimdBytes / 2)));
inline __attribute__((always_inline)) FloatVector load(const bfloat16* p) {
  typedef uint32_t Wide __attribute__((vector_size(kSimdBytes)));
  Bf16Vector half;
  std::memcpy(&half, p, sizeof half);
  return widened_bf16<FloatVector, Wide>(half);
}
inline __attribute__((always_inline)) void store(bfloat16* p, FloatVector v) {
  typedef uint32_t Wide __attribute__((vector_size(kSimdBytes)));
  const auto half = rounded_bf16<Bf16Vector, Wide>(v);
  std::memcpy(static_cast<void*>(p), &half, sizeof half);
}

template <class T>
inline __attribute__((always_inline)) typename Simd<T>::Vector broadcast(T x) {
  return x - typename Simd<T>::Vector{};
}

// The sum of all lanes, by halves.
inline __attribute__((always_inline)) float lane_sum(FloatVector v) {
  typedef float Quarter __attribute__((vector_size(16)));
  constexpr int kQuarters = kSimdBytes / 16;
  Quarter q[kQuarters];
  std::memcpy(q, &v, sizeof v);
  MTCKI_UNROLL for (int half = kQuarters / 2; half > 0; half /= 2)
      MTCKI_UNROLL for (int i = 0; i < half; ++i) q[i] += q[i + half];
  return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

}  // namespace mtcki

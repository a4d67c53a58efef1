// Internal: one register of floats or doubles as a GCC/Clang vector type, so that one source makes
// AVX2 and AVX-512 code, and bf16 in memory beside f32 in registers. a * b + c contracts to a fused multiply-add (-ffp-contract=fast).
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/dtype.h"

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

// i32 indices beside a vector of T: as many lanes. (GCC 12 takes no dependent vector_size.)
template <class T>
struct SimdIndex;
template <>
struct SimdIndex<float> {
  typedef int32_t Vector __attribute__((vector_size(kSimdBytes)));
};
template <>
struct SimdIndex<double> {
  typedef int32_t Vector __attribute__((vector_size(kSimdBytes / 2)));
};

// What a kernel computes in when its tensors hold S: bf16 is converted in registers.
template <class S>
using Computed = std::conditional_t<std::is_same_v<S, bfloat16>, float, S>;
struct Bf16Vector {  // as many lanes as a vector of floats
  typedef uint16_t Half __attribute__((vector_size(kSimdBytes / 2)));
  typedef uint32_t Full __attribute__((vector_size(kSimdBytes)));
};

// F is a vector of floats; U and H are vectors of as many uint32_t and uint16_t.
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

// One unaligned load of V, which is a vector or a single element: kernels are written once for the
// vectors of a row and for its end. bf16 is widened to floats.
template <class V, class T>
[[gnu::always_inline]] inline V load_as(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <class V>
[[gnu::always_inline]] inline V load_as(const bfloat16* p) {
  if constexpr (std::is_same_v<V, float>) {
    return *p;
  } else {
    return widened_bf16<V, Bf16Vector::Full>(load_as<Bf16Vector::Half>(&p->bits));
  }
}
template <class T>
[[gnu::always_inline]] inline typename Simd<T>::Vector load(const T* p) {
  return load_as<typename Simd<T>::Vector>(p);
}
[[gnu::always_inline]] inline FloatVector load(const bfloat16* p) {
  return load_as<FloatVector>(p);
}
// A load whose value is used several times. Without the barrier GCC may fold the load into every
// multiply-add that uses it, and a kernel with few of those per load waits for the load ports.
template <class T>
[[gnu::always_inline]] inline typename Simd<T>::Vector load_once(const T* p) {
  auto v = load(p);
#if defined(__AVX__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

template <class T, class V>
[[gnu::always_inline]] inline void store(T* p, const V& v) {
  std::memcpy(p, &v, sizeof(V));
}
template <class V>
[[gnu::always_inline]] inline void store(bfloat16* p, const V& v) {
  if constexpr (std::is_same_v<V, float>) {
    *p = bfloat16(v);
  } else {
    store(&p->bits, rounded_bf16<Bf16Vector::Half, Bf16Vector::Full>(v));
  }
}

// The value in every lane of V, or itself where V is a single element. (x - 0 is x, -0 too.)
template <class V, class T>
[[gnu::always_inline]] inline V splat(T value) {
  return value - V{};
}
template <class T>
[[gnu::always_inline]] inline typename Simd<T>::Vector broadcast(T value) {
  return splat<typename Simd<T>::Vector>(value);
}

// The sum of all lanes, by halves.
[[gnu::always_inline]] inline float lane_sum(FloatVector v) {
  typedef float Quarter __attribute__((vector_size(16)));
  constexpr int kQuarters = kSimdBytes / 16;
  Quarter q[kQuarters];
  std::memcpy(q, &v, sizeof v);
  MTCKI_UNROLL for (int half = kQuarters / 2; half > 0; half /= 2)
      MTCKI_UNROLL for (int i = 0; i < half; ++i) q[i] += q[i + half];
  return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

}  // namespace mtcki

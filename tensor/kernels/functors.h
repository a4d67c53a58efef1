// The mathematics of the elementwise kernels, one small struct per op, called by the OpenMP loops
// and by CUDA kernels alike. T is float or double. C++17, no standard containers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/dtype.h"
#include "tensor/host_device.h"

namespace mtcki {

// Element type conversion. Float to integer truncates toward zero and saturates at the range of
// i64 (NaN: 0) before it wraps to the narrower types, so that no value is undefined behaviour.
template <class To, class From>
struct Convert {
  MTCKI_HD To operator()(From x) const {
    if constexpr (std::is_same<To, bool>::value) {
      if constexpr (std::is_same<From, bfloat16>::value) {
        return static_cast<float>(x) != 0.0f;
      } else {
        return x != From(0);
      }
    } else if constexpr (std::is_same<From, bfloat16>::value) {
      return Convert<To, float>()(static_cast<float>(x));
    } else if constexpr (std::is_same<To, bfloat16>::value) {
      return bfloat16(static_cast<float>(x));
    } else if constexpr (std::is_floating_point<From>::value && std::is_integral<To>::value) {
      const From limit = From(9223372036854775808.0);
      int64_t i = 0;
      if (x >= limit) {
        i = INT64_MAX;
      } else if (x < -limit) {
        i = INT64_MIN;
      } else if (x == x) {
        i = static_cast<int64_t>(x);
      }
      return static_cast<To>(i);
    } else {
      return static_cast<To>(x);
    }
  }
};

// For float, without branches or calls, so that loops over it vectorise:
//   exp(x) = 2^n y, n = round(x/ln 2), y = exp(r), r = x - n ln 2 (in two parts), |r| <= ln(2)/2,
//   exp(r) = 1 + r + r^2 q(r), q minimax of degree 4 (relative error 3e-9).
struct SplitExp {
  float y;
  int32_t n;
  MTCKI_HD explicit SplitExp(float x) {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    const float magic = 12582912.0f;
    const float shifted = x * 1.44269504088896341f + magic;
    const float whole = shifted - magic;
    const float r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    float q = 1.381453789e-3f;
    q = q * r + 8.368745320e-3f;
    q = q * r + 4.1668390831e-2f;
    q = q * r + 1.66665203968e-1f;
    q = q * r + 4.99999934319e-1f;
    y = q * r * r + r + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, 4);
    n = static_cast<int32_t>(bits - 0x4b400000u);
  }
};
// 2^n, n a normal number's exponent.
MTCKI_HD inline float power_of_two(int32_t n) {
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return power;
}

// exp for float, within 2 ulp, where no result is subnormal or infinite: it saturates at e^-87 and
// e^88; NaN stays.
struct FastExpFn {
  MTCKI_HD float operator()(float x) const {
    const SplitExp e(x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x));
    return e.y * power_of_two(e.n);
  }
};

// tanh for float, within 4 ulp, vectorising: x + x^3 P(x^2) below 0.625 (minimax, 4e-9), else
// 1 - 2/(exp(2|x|) + 1) with the sign of x.
struct FastTanhFn {
  MTCKI_HD float operator()(float x) const {
    const float a = std::fabs(x), z = x * x;
    float p = -5.704978374e-3f;
    p = p * z + 2.0639078779e-2f;
    p = p * z - 5.3739712157e-2f;
    p = p * z + 1.33314421575e-1f;
    p = p * z - 3.33332819402e-1f;
    const float near = x + x * z * p;
    const float far = 1.0f - 2.0f / (FastExpFn()(a + a) + 1.0f);
    return a < 0.625f ? near : (x < 0.0f ? -far : far);
  }
};

// erf for float, within 8 ulp, vectorising: x P(x^2)/Q(x^2) in [-4, 4], beyond which it is +-1 (the
// rational function of Eigen's generic_erf).
struct FastErfFn {
  MTCKI_HD float operator()(float x) const {
    const float low = x < -4.0f ? -4.0f : x, c = low > 4.0f ? 4.0f : low, z = c * c;
    float p = -2.72614225801306e-10f;
    p = p * z + 2.77068142495902e-8f;
    p = p * z - 2.10102402082508e-6f;
    p = p * z - 5.69250639462346e-5f;
    p = p * z - 7.34990630326855e-4f;
    p = p * z - 2.95459980854025e-3f;
    p = p * z - 1.60960333262415e-2f;
    float q = -1.45660718464996e-5f;
    q = q * z - 2.13374055278905e-4f;
    q = q * z - 1.68282697438203e-3f;
    q = q * z - 7.37332916720468e-3f;
    q = q * z - 1.42647390514189e-2f;
    const float y = c * p / q, above = y < -1.0f ? -1.0f : y;
    return above > 1.0f ? 1.0f : above;
  }
};

// log for float, within 2 ulp, vectorising: x = 2^n m with m in [sqrt(1/2), sqrt(2)), f = m - 1,
//   log(x) = n ln 2 + f - f^2/2 + f^3 p(f), p minimax of degree 8 (Cephes).
struct FastLogFn {
  MTCKI_HD float operator()(float x) const {
    const bool subnormal = x < 1.17549435e-38f;
    const float scaled = x * 33554432.0f;  // 2^25
    const float normal = subnormal ? scaled : x;
    const uint32_t root_half = 0x3f3504f3u;
    uint32_t bits;
    std::memcpy(&bits, &normal, 4);
    bits -= root_half;
    const float n =
        static_cast<float>(static_cast<int32_t>(bits) >> 23) - (subnormal ? 25.0f : 0.0f);
    bits = (bits & 0x007fffffu) + root_half;
    float f;
    std::memcpy(&f, &bits, 4);
    f -= 1.0f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const float z = f * f;
    const float small = (p * f * z - 2.12194440e-4f * n) - 0.5f * z;
    const float y = f + small + 0.693359375f * n;
    const float infinite = static_cast<float>(INFINITY);
    const float finite = x < infinite ? y : x;  // a NaN, too, goes through
    const float low = x == 0.0f ? -infinite : static_cast<float>(NAN);
    return x <= 0.0f ? low : finite;
  }
};

// Unary ops. p, q: the op's scalars.
template <class T>
struct AddScalarFn {
  T p;
  MTCKI_HD T operator()(T x) const { return x + p; }
};
template <class T>
struct MulScalarFn {
  T p;
  MTCKI_HD T operator()(T x) const { return x * p; }
};
template <class T>
struct NegFn {
  MTCKI_HD T operator()(T x) const { return -x; }
};
template <class T>
struct ExpFn {
  MTCKI_HD T operator()(T x) const {
    if constexpr (std::is_same<T, float>::value) {  // within 2 ulp
      const SplitExp e(x < -104.0f ? -104.0f : (x > 89.0f ? 89.0f : x));
      const int32_t half = e.n >> 1;  // 2^n itself may not be a normal number
      return e.y * power_of_two(half) * power_of_two(e.n - half);
    } else {
      return std::exp(x);
    }
  }
};
template <class T>
struct LogFn {
  MTCKI_HD T operator()(T x) const {
    if constexpr (std::is_same<T, float>::value) return FastLogFn()(x);
    return std::log(x);
  }
};
template <class T>
struct SqrtFn {
  MTCKI_HD T operator()(T x) const { return std::sqrt(x); }
};
template <class T>
struct SquareFn {
  MTCKI_HD T operator()(T x) const { return x * x; }
};
template <class T>
struct AbsFn {
  MTCKI_HD T operator()(T x) const { return std::fabs(x); }
};
template <class T>
struct SignFn {
  MTCKI_HD T operator()(T x) const { return x > T(0) ? T(1) : (x < T(0) ? T(-1) : T(0)); }
};
// Comparisons are written so that a NaN goes through.
template <class T>
struct ClampFn {
  T p, q;
  MTCKI_HD T operator()(T x) const {
    const T low = x < p ? p : x;
    return low > q ? q : low;
  }
};
template <class T>
struct ReluFn {
  MTCKI_HD T operator()(T x) const { return x < T(0) ? T(0) : x; }
};
template <class T>
struct LeakyReluFn {
  T p;
  // The product outside the choice: a loop over a conditional one does not vectorise.
  MTCKI_HD T operator()(T x) const {
    const T scaled = p * x;
    return x < T(0) ? scaled : x;
  }
};
template <class T>
struct SigmoidFn {
  MTCKI_HD T operator()(T x) const {
    if constexpr (std::is_same<T, float>::value) return 1.0f / (1.0f + FastExpFn()(-x));
    return T(1) / (T(1) + std::exp(-x));
  }
};
template <class T>
struct TanhFn {
  MTCKI_HD T operator()(T x) const {
    if constexpr (std::is_same<T, float>::value) return FastTanhFn()(x);
    return std::tanh(x);
  }
};
template <class T>
struct ErfFn {
  MTCKI_HD T operator()(T x) const {
    if constexpr (std::is_same<T, float>::value) return FastErfFn()(x);
    return std::erf(x);
  }
};

// Binary ops.
template <class T>
struct AddFn {
  MTCKI_HD T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct SubFn {
  MTCKI_HD T operator()(T a, T b) const { return a - b; }
};
template <class T>
struct MulFn {
  MTCKI_HD T operator()(T a, T b) const { return a * b; }
};
template <class T>
struct DivFn {
  MTCKI_HD T operator()(T a, T b) const { return a / b; }
};
template <class T>
struct MaximumFn {
  MTCKI_HD T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};
// Gradients: a = gradient of the output, b = the output.
template <class T>
struct ReluGradFn {
  MTCKI_HD T operator()(T gy, T y) const { return y <= T(0) ? T(0) : gy; }
};
template <class T>
struct LeakyReluGradFn {
  T p;
  MTCKI_HD T operator()(T gy, T y) const {
    const T scaled = p * gy;
    return y <= T(0) ? scaled : gy;
  }
};
// A NaN's gradient goes through, as in ReluGradFn.
template <class T>
struct ClampGradFn {
  T low, high;
  MTCKI_HD T operator()(T gy, T y) const { return y <= low || y >= high ? T(0) : gy; }
};
template <class T>
struct SigmoidGradFn {
  MTCKI_HD T operator()(T gy, T y) const { return gy * y * (T(1) - y); }
};
template <class T>
struct TanhGradFn {
  MTCKI_HD T operator()(T gy, T y) const { return gy * (T(1) - y * y); }
};

// Comparisons.
template <class T>
struct EqualFn {
  MTCKI_HD bool operator()(T a, T b) const { return a == b; }
};
template <class T>
struct LessFn {
  MTCKI_HD bool operator()(T a, T b) const { return a < b; }
};

// Activations fused into batch normalisation. V: a scalar, or a SIMD vector on the CPU.
// parameter: the slope, or the bound.
enum class Act { none, relu, leaky_relu, bounded_relu };
template <Act A, class V>
MTCKI_HD inline V activate(V y, V parameter) {
  if constexpr (A == Act::none) return y;
  if constexpr (A == Act::relu) return y < V{} ? V{} : y;
  if constexpr (A == Act::leaky_relu) return y < V{} ? parameter * y : y;
  if constexpr (A == Act::bounded_relu) {
    const V low = y < V{} ? V{} : y;
    return low > parameter ? parameter : low;
  }
}
// gy * act'(y); y is the activation's input or output, whose signs agree for slopes > 0.
template <Act A, class V>
MTCKI_HD inline V activate_grad(V gy, V y, V parameter) {
  if constexpr (A == Act::none) return gy;
  if constexpr (A == Act::relu) return y <= V{} ? V{} : gy;
  if constexpr (A == Act::leaky_relu) return y <= V{} ? parameter * gy : gy;
  if constexpr (A == Act::bounded_relu) {
    const V low = y <= V{} ? V{} : gy;
    return y >= parameter ? V{} : low;
  }
}
// (x - mean) first: the form x*scale + shift loses all digits when the mean is large.
template <class V>
MTCKI_HD inline V bn_affine(V x, V mean, V scale, V bias) {
  return (x - mean) * scale + bias;
}

}  // namespace mtcki

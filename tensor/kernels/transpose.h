// Internal: squares of 32-bit values in registers, and what they make of planes of channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

namespace mtcki {

// A row of N. (GCC 12 takes no dependent vector_size.)
template <int N>
struct SquareRow;
template <>
struct SquareRow<8> {
  typedef uint32_t Vector __attribute__((vector_size(32)));
};
template <>
struct SquareRow<16> {
  typedef uint32_t Vector __attribute__((vector_size(64)));
};

#if !defined(__clang__)  // has no __builtin_shuffle
// Exchanges the off-diagonal squares of kSize x kSize.
template <int N, uint32_t kSize, uint32_t... kLane>
[[gnu::always_inline]] inline void exchange_squares(typename SquareRow<N>::Vector* r,
                                                    std::integer_sequence<uint32_t, kLane...>) {
  using Vector = typename SquareRow<N>::Vector;
  constexpr Vector low{(kLane & kSize ? N + kLane - kSize : kLane)...};
  constexpr Vector high{(kLane & kSize ? N + kLane : kLane + kSize)...};
#pragma GCC unroll 16
  for (uint32_t i = 0; i < N; ++i)
    if ((i & kSize) == 0) {
      const Vector a = r[i], b = r[i + kSize];
      r[i] = __builtin_shuffle(a, b, low);
      r[i + kSize] = __builtin_shuffle(a, b, high);
    }
}
#endif

// to[j * pitch + i] = from[i][j] for the first `columns` of N columns j; N rows of 4 N bytes, N 8 or
// 16.
template <int N>
inline void transpose_square(const void* const* from, void* to, int64_t pitch, int columns = N) {
  auto* out = static_cast<char*>(to);
  const int64_t step = pitch * 4;
#if defined(__clang__)
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < columns; ++j)
      std::memcpy(out + j * step + 4 * i, static_cast<const char*>(from[i]) + 4 * j, 4);
#else
  using Vector = typename SquareRow<N>::Vector;
  Vector r[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) std::memcpy(&r[i], from[i], 4 * N);
  constexpr auto lanes = std::make_integer_sequence<uint32_t, N>();
  if constexpr (N == 16) exchange_squares<N, 8>(r, lanes);
  exchange_squares<N, 4>(r, lanes);
  exchange_squares<N, 2>(r, lanes);
  exchange_squares<N, 1>(r, lanes);
#pragma GCC unroll 16
  for (int j = 0; j < N; ++j)
    if (j < columns) std::memcpy(out + j * step, &r[j], 4 * N);
#endif
}

// lanes[pixel][N] from `planes` planes (N at most) that lie `pitch` apart; missing ones are zero. What
// follows in memory is fetched, for the next planes: in this order the processor does not foresee it.
template <int N, class T>
void planes_to_lanes(const T* in, int64_t pitch, int64_t planes, int64_t pixels, T* lanes) {
  static_assert(sizeof(T) == 4);
  static constexpr T kZeros[N] = {};
  const void* rows[N];
  int64_t p = 0;
  for (; p + N <= pixels; p += N) {
    for (int i = 0; i < N; ++i) {
      rows[i] = i < planes ? in + i * pitch + p : kZeros;
      __builtin_prefetch(in + (i + N) * pitch + p);
    }
    transpose_square<N>(rows, lanes + p * N, N);
  }
  for (; p < pixels; ++p)
    for (int i = 0; i < N; ++i) lanes[p * N + i] = i < planes ? in[i * pitch + p] : T(0);
}
template <int N, class T>
void lanes_to_planes(const T* lanes, int64_t pitch, int64_t planes, int64_t pixels, T* out) {
  static_assert(sizeof(T) == 4);
  const void* rows[N];
  int64_t p = 0;
  for (; p + N <= pixels; p += N) {
    for (int i = 0; i < N; ++i) {
      rows[i] = lanes + (p + i) * N;
      __builtin_prefetch(out + (i + N) * pitch + p, 1);
    }
    transpose_square<N>(rows, out + p, pitch, static_cast<int>(planes));
  }
  for (; p < pixels; ++p)
    for (int64_t i = 0; i < planes; ++i) out[i * pitch + p] = lanes[p * N + i];
}

}  // namespace mtcki

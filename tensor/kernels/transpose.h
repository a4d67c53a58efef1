// Internal: 16 x 16 values of 32 bits in registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace mtcki {

// to[j * pitch + i] = from[i][j] for the first `columns` of 16 columns j; 16 rows of 64 bytes.
inline void transpose_16x16(const void* const* from, void* to, int64_t pitch, int columns = 16) {
  auto* out = static_cast<char*>(to);
  const int64_t step = pitch * 4;
#if defined(__clang__)  // has no __builtin_shuffle
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < columns; ++j)
      std::memcpy(out + j * step + 4 * i, static_cast<const char*>(from[i]) + 4 * j, 4);
#else
  typedef uint32_t Vector __attribute__((vector_size(64)));
  Vector r[16];
  for (int i = 0; i < 16; ++i) std::memcpy(&r[i], from[i], 64);
  // Exchanges the off-diagonal squares of 8 x 8, then 4 x 4, 2 x 2, 1 x 1.
  const auto exchange = [&r](int size, const Vector& low, const Vector& high)
      __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if ((i & size) == 0) {
        const Vector a = r[i], b = r[i + size];
        r[i] = __builtin_shuffle(a, b, low);
        r[i + size] = __builtin_shuffle(a, b, high);
      }
  };
  exchange(8, Vector{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
           Vector{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  exchange(4, Vector{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
           Vector{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
  exchange(2, Vector{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
           Vector{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  exchange(1, Vector{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
           Vector{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
  for (int j = 0; j < columns; ++j) std::memcpy(out + j * step, &r[j], 64);
#endif
}

}  // namespace mtcki

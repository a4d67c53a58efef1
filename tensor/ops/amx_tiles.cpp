#include "tensor/ops/amx_tiles.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mtcki::amx {

bool available() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
    if ((d & kBf16) == 0 || (d & kTile) == 0) return false;
    // The registers are large: Linux gives them to a process that asks (arch_prctl).
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return has;
#else
  return false;
#endif
}

void transpose_16x16(const uint32_t* from, uint32_t* to) {
#if defined(__clang__)  // has no __builtin_shuffle
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) to[16 * j + i] = from[16 * i + j];
#else
  typedef uint32_t Vector __attribute__((vector_size(64)));
  Vector r[16];
  for (int i = 0; i < 16; ++i) std::memcpy(&r[i], from + 16 * i, 64);
  // Swaps the off-diagonal squares of 8 x 8, then 4 x 4, 2 x 2, 1 x 1.
  const auto swap = [&r](int size, const Vector& low, const Vector& high)
      __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if ((i & size) == 0) {
        const Vector a = r[i], b = r[i + size];
        r[i] = __builtin_shuffle(a, b, low);
        r[i + size] = __builtin_shuffle(a, b, high);
      }
  };
  swap(8, Vector{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
       Vector{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  swap(4, Vector{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
       Vector{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
  swap(2, Vector{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
       Vector{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  swap(1, Vector{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
       Vector{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
  for (int i = 0; i < 16; ++i) std::memcpy(to + 16 * i, &r[i], 64);
#endif
}

}  // namespace mtcki::amx

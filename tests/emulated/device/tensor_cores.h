// What cuda/mma.cuh and cuda/wgmma.cuh declare, on the emulated GPU: each looks into the registers of
// the other lanes. Included by simt.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mtcki::cuda {

using SharedAddress = uintptr_t;
inline SharedAddress shared_address(const void* shared) {
  return reinterpret_cast<SharedAddress>(shared);
}

// f(element, g, t), element(matrix, row, column) of the matrices that the lanes' rows make up.
template <class F>
void with_matrices(SharedAddress row, const F& f) {
  const int lane = simt::here.thread & 31;
  simt::collect(row, [&](const uint64_t* rows) {
    const auto element = [&](int matrix, int i, int column) {
      uint16_t bits;
      std::memcpy(&bits, reinterpret_cast<const char*>(rows[8 * matrix + i]) + 2 * column, 2);
      return uint32_t{bits};
    };
    f(element, lane / 4, lane % 4);
  });
}
template <int N>
void load_transposed(uint32_t (&out)[N], SharedAddress row) {
  with_matrices(row, [&](const auto& element, int g, int t) {
    for (int j = 0; j < N; ++j) out[j] = element(j, 2 * t, g) | element(j, 2 * t + 1, g) << 16;
  });
}
inline void load_matrices(uint32_t (&out)[4], SharedAddress row) {
  with_matrices(row, [&](const auto& element, int g, int t) {
    for (int j = 0; j < 4; ++j) out[j] = element(j, g, 2 * t) | element(j, g, 2 * t + 1) << 16;
  });
}

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  const Operands mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const int lane = simt::here.thread & 31, g = lane / 4, t = lane % 4;
  simt::collect(reinterpret_cast<uint64_t>(&mine), [&](const uint64_t* lanes) {
    const auto of = [&](int l) -> const Operands& {
      return *reinterpret_cast<const Operands*>(lanes[l]);
    };
    const auto unpack = [](uint32_t pair, float* two) {
      const uint32_t bits[2] = {pair << 16, pair & 0xFFFF0000u};
      std::memcpy(two, bits, sizeof bits);
    };
    // Elements k and k+1 of a row of A, or of a column of B, are with lane k % 8 / 2 of the four
    // that hold it.
    float rows[2][16], columns[2][16];
    for (int k = 0; k < 16; k += 2)
      for (int i = 0; i < 2; ++i) {
        unpack(of(4 * g + k % 8 / 2).a[i + k / 8 * 2], &rows[i][k]);
        unpack(of(4 * (2 * t + i) + k % 8 / 2).b[k / 8], &columns[i][k]);
      }
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 16; ++k) d[i] += rows[i / 2][k] * columns[i % 2][k];
  });
}

inline uint4 load16(const void* global) { return *static_cast<const uint4*>(global); }
inline void store16(void* global, const uint4& v) { *static_cast<uint4*>(global) = v; }

inline void copy16_async(SharedAddress shared, const void* global, bool there) {
  simt::copy_later(reinterpret_cast<void*>(shared), there ? global : nullptr, 16);
}
inline void end_copies() { simt::end_copies(); }
template <int Open>
void wait_copies() {
  simt::wait_copies(Open);
}

struct SharedBlocks {
  SharedAddress start;
  int next_k, next_n;
  SharedBlocks at(int bytes) const {
    return {start + static_cast<SharedAddress>(bytes), next_k, next_n};
  }
};

template <int N, int At, bool First>
void product(float (&d)[64], const uint32_t (&a)[4], const SharedBlocks& b) {
  if (First) std::fill_n(d + At, N / 2, 0.0f);
  const int lane = simt::here.thread & 31, g = lane / 4, t = lane % 4;
  simt::check_published(
      reinterpret_cast<const char*>(b.start),
      reinterpret_cast<const char*>(b.start) + b.next_k + (N / 8 - 1) * b.next_n + 8 * 16);
  const auto value = [](uint32_t bits) {
    bfloat16 v;
    v.bits = static_cast<uint16_t>(bits);
    return static_cast<float>(v);
  };
  simt::collect(reinterpret_cast<uint64_t>(a), [&](const uint64_t* lanes) {
    float rows[2][16];  // of A
    for (int k = 0; k < 16; ++k)
      for (int half = 0; half < 2; ++half) {
        const auto* of = reinterpret_cast<const uint32_t*>(lanes[4 * g + k % 8 / 2]);
        rows[half][k] = value(of[half + k / 8 * 2] >> k % 2 * 16);
      }
    for (int n = 2 * t; n < N; n += n % 2 ? 7 : 1) {
      const auto* column = reinterpret_cast<const char*>(b.start) + n / 8 * b.next_n + n % 8 * 16;
      for (int k = 0; k < 16; ++k) {
        uint16_t bits;
        std::memcpy(&bits, column + k / 8 * b.next_k + k % 8 * 2, 2);
        for (int half = 0; half < 2; ++half)
          d[At + n / 8 * 4 + 2 * half + n % 2] += rows[half][k] * value(bits);
      }
    }
  });
}

inline void publish_to_products() { simt::publish_copies(); }
inline void begin_products() {}
inline void end_products() {}
template <int Size>
void wait_products(float (&)[Size]) {}
inline void warpgroup_barrier(int) { simt::yield(simt::Wait::warpgroup); }
inline void wait_for_turn(int warpgroup) { simt::wait_turn(warpgroup); }
inline void end_turn(int warpgroup) { simt::arrive_turn(1 - warpgroup); }

inline void store_transposed(SharedAddress row, const uint32_t (&v)[4]) {
  const int lane = simt::here.thread & 31, g = lane / 4, t = lane % 4;
  simt::collect(row, [&](const uint64_t* rows) {
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 2; ++e) {
        const auto bits = static_cast<uint16_t>(v[j] >> 16 * e);
        std::memcpy(reinterpret_cast<char*>(rows[8 * j + 2 * t + e]) + 2 * g, &bits, 2);
      }
  });
}

}  // namespace mtcki::cuda

// Internal: the eight tile registers of Intel AMX: 16 rows of 64 bytes. In assembly, because a
// program for any CPU may use them where they are, whatever it is compiled for.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

namespace mtcki::amx {

// Whether this CPU multiplies bf16 tiles and the system lets this process use the registers.
bool available();

#if defined(__x86_64__)
struct Tiles {
  // The registers are a thread's while a Scope lives.
  struct Scope {
    Scope() {
      struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } config;
      __asm__ volatile("ldtilecfg %0" : : "m"(config));
    }
    ~Scope() { __asm__ volatile("tilerelease"); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };
  template <int T>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  // Rows of 64 bytes, `pitch` bytes apart.
  template <int T>
  static void load(const void* from, int64_t pitch) {
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(pitch) : "memory");
  }
  template <int T>
  static void store(void* to, int64_t pitch) {
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(pitch) : "memory");
  }
  // C += A B: C 16 x 16 f32, A 16 x 32 bf16, B 32 x 16 bf16 as 16 rows of pairs.
  template <int C, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};
#endif

// The same by plain loops.
struct PlainTiles {
  struct Scope {};
  static uint8_t (*registers())[16][64] {
    thread_local uint8_t tiles[8][16][64];
    return tiles;
  }
  template <int T>
  static void zero() {
    std::memset(registers()[T], 0, 1024);
  }
  template <int T>
  static void load(const void* from, int64_t pitch) {
    for (int i = 0; i < 16; ++i)
      std::memcpy(registers()[T][i], static_cast<const char*>(from) + i * pitch, 64);
  }
  template <int T>
  static void store(void* to, int64_t pitch) {
    for (int i = 0; i < 16; ++i)
      std::memcpy(static_cast<char*>(to) + i * pitch, registers()[T][i], 64);
  }
  template <int C, int A, int B>
  static void multiply() {
    float c[16][16];
    bfloat16 a[16][32], b[16][16][2];
    std::memcpy(c, registers()[C], sizeof c);
    std::memcpy(a, registers()[A], sizeof a);
    std::memcpy(b, registers()[B], sizeof b);
    for (int m = 0; m < 16; ++m)
      for (int k = 0; k < 32; ++k)
        for (int n = 0; n < 16; ++n) c[m][n] += float(a[m][k]) * float(b[k / 2][n][k % 2]);
    std::memcpy(registers()[C], c, sizeof c);
  }
};
#if !defined(__x86_64__)
using Tiles = PlainTiles;
#endif

}  // namespace mtcki::amx

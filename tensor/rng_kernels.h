// The arithmetic of rng.h, shared by both devices, and its CUDA kernels.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/host_device.h"
#include "tensor/rng.h"

namespace mtcki {

struct PhiloxWords {
  uint32_t v[4];
};

// Philox4x32-10 of counter c and key (k0, k1).
MTCKI_HD inline PhiloxWords philox_words(PhiloxWords c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c.v[0], p1 = uint64_t{0xCD9E8D57u} * c.v[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.v[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.v[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}
MTCKI_HD inline PhiloxWords random_words(uint64_t seed, uint32_t stream, uint64_t step,
                                         uint64_t index) {
  return philox_words({{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                        static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)}},
                      static_cast<uint32_t>(seed) ^ stream, static_cast<uint32_t>(seed >> 32));
}

MTCKI_HD inline double unit53(uint32_t high, uint32_t low) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 21) ^ (low >> 11);
  return static_cast<double>(bits & ((uint64_t{1} << 53) - 1)) * 0x1.0p-53;
}

// The high half of the 128-bit product with n: 0..n-1.
MTCKI_HD inline uint64_t below_of(const PhiloxWords& b, uint64_t n) {
  const uint64_t x = (static_cast<uint64_t>(b.v[0]) << 32) | b.v[1];
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(x) * n) >> 64);
}

// Two values of a draw from one call of Philox: element 2i and 2i + 1 from counter i.
struct RandomPair {
  double a, b;
};
struct Uniform53 {
  MTCKI_HD RandomPair operator()(const PhiloxWords& w) const {
    return {unit53(w.v[0], w.v[1]), unit53(w.v[2], w.v[3])};
  }
};
// f32 values keep 24 bits, so that rounding never yields 1.
struct Uniform24 {
  MTCKI_HD RandomPair operator()(const PhiloxWords& w) const {
    return {(w.v[0] >> 8) * 0x1.0p-24, (w.v[2] >> 8) * 0x1.0p-24};
  }
};
struct BoxMuller {
  MTCKI_HD RandomPair operator()(const PhiloxWords& w) const {
    const double u = 1.0 - unit53(w.v[0], w.v[1]);  // (0, 1]: the logarithm is finite
    const double r = std::sqrt(-2.0 * std::log(u));
    const double angle = 2.0 * 3.14159265358979323846 * unit53(w.v[2], w.v[3]);
    return {r * std::cos(angle), r * std::sin(angle)};
  }
};

// Fill y, of any float type: elements in plain C order.
void rand_cuda(const Rng& rng, const Tensor& y);
void randn_cuda(const Rng& rng, const Tensor& y);
void randint_cuda(int64_t low, uint64_t range, const Rng& rng, const Tensor& y);  // y i64

}  // namespace mtcki

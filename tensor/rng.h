// Randomness: Philox4x32-10 (Salmon et al., SC 2011), stateless. A draw is a pure function of
// (seed, stream, step, index), equal on every device, independent of the thread count, free to
// resume: nothing but the position is ever saved.
#pragma once

#include <array>
#include <cstdint>

#include "tensor/tensor.h"

namespace mtcki {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The name of a stream, hashed (FNV-1a): rng_stream("synthesis/latents").
constexpr uint32_t rng_stream(const char* name) {
  uint32_t h = 2166136261u;
  for (; *name; ++name) h = (h ^ static_cast<uint8_t>(*name)) * 16777619u;
  return h;
}

// One family of draws. counter = (index lo, index hi, step lo, step hi), key = (seed lo ^ stream,
// seed hi). In a tensor, in plain C order, elements 2i and 2i+1 of rand and randn come from index i,
// element i of randint from index i.
struct Rng {
  uint64_t seed = 0;
  uint32_t stream = 0;
  uint64_t step = 0;

  Rng at(uint64_t new_step) const { return {seed, stream, new_step}; }
  std::array<uint32_t, 4> bits(uint64_t index) const;
  double uniform(uint64_t index) const;              // [0, 1), 53 bits
  uint64_t below(uint64_t n, uint64_t index) const;  // 0..n-1
};

// On the GPU rand and randint give the bits of the CPU. randn computes in f64 with the logarithm,
// sine and cosine of the device, which differ in the last bits of f64: rounded to f32 or bf16 all
// but about one value in 10^8 are equal, in f64 values agree to about 1e-15.
Tensor rand(const Shape& shape, const Rng& rng, DType dtype = DType::f32,
            Device device = {});  // U[0, 1); rounding makes one of 512 values in bf16 a 1
Tensor randn(const Shape& shape, const Rng& rng, DType dtype = DType::f32,
             Device device = {});  // N(0, 1), Box-Muller
Tensor randint(int64_t low, int64_t high, const Shape& shape, const Rng& rng,
               Device device = {});                              // i64, [low, high)
Tensor randperm(int64_t n, const Rng& rng, Device device = {});  // i64; drawn on the host
// k distinct values of 0..n-1 in random order (k <= n), in O(k) memory.
Tensor sample_without_replacement(int64_t n, int64_t k, const Rng& rng);

}  // namespace mtcki

#include "tensor/rng.h"

#include <cmath>
#include <numeric>
#include <unordered_map>

#include "tensor/parallel.h"

namespace mtcki {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

std::array<uint32_t, 4> Rng::bits(uint64_t index) const {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                     static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)},
                    {static_cast<uint32_t>(seed) ^ stream, static_cast<uint32_t>(seed >> 32)});
}

namespace {

double unit53(uint32_t high, uint32_t low) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 21) ^ (low >> 11);
  return static_cast<double>(bits & ((uint64_t{1} << 53) - 1)) * 0x1.0p-53;
}

// Element i uses counter i/2 for f64-quality pairs: one Philox call gives two values.
template <class F>
Tensor fill_pairs(const Shape& shape, const Rng& rng, DType dtype, const F& pair) {
  const DType compute = dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor t = Tensor::empty(shape, compute);
  const int64_t n = t.numel();
  MTCKI_DISPATCH_FLOAT(compute, "rand", T, {
    T* out = t.data<T>();
    parallel_for((n + 1) / 2, 1 << 12, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        double a, b;
        pair(rng.bits(static_cast<uint64_t>(i)), &a, &b);
        out[2 * i] = static_cast<T>(a);
        if (2 * i + 1 < n) out[2 * i + 1] = static_cast<T>(b);
      }
    });
  });
  return t.to(dtype);
}

}  // namespace

double Rng::uniform(uint64_t index) const {
  const auto b = bits(index);
  return unit53(b[0], b[1]);
}

uint64_t Rng::below(uint64_t n, uint64_t index) const {
  const auto b = bits(index);
  const uint64_t x = (static_cast<uint64_t>(b[0]) << 32) | b[1];
  __extension__ using Wide = unsigned __int128;  // high half of a 64x64-bit product
  return static_cast<uint64_t>((static_cast<Wide>(x) * n) >> 64);
}

Tensor rand(const Shape& shape, const Rng& rng, DType dtype) {
  // f32 values keep 24 bits, so that rounding never yields 1.
  if (dtype == DType::f64) {
    return fill_pairs(shape, rng, dtype, [](const std::array<uint32_t, 4>& b, double* x, double* y) {
      *x = unit53(b[0], b[1]);
      *y = unit53(b[2], b[3]);
    });
  }
  return fill_pairs(shape, rng, dtype, [](const std::array<uint32_t, 4>& b, double* x, double* y) {
    *x = (b[0] >> 8) * 0x1.0p-24;
    *y = (b[2] >> 8) * 0x1.0p-24;
  });
}

Tensor randn(const Shape& shape, const Rng& rng, DType dtype) {
  return fill_pairs(shape, rng, dtype, [](const std::array<uint32_t, 4>& b, double* x, double* y) {
    const double u = 1.0 - unit53(b[0], b[1]);  // (0, 1]: the logarithm is finite
    const double r = std::sqrt(-2.0 * std::log(u));
    const double angle = 2.0 * 3.14159265358979323846 * unit53(b[2], b[3]);
    *x = r * std::cos(angle);
    *y = r * std::sin(angle);
  });
}

Tensor randint(int64_t low, int64_t high, const Shape& shape, const Rng& rng) {
  if (high <= low) throw Error(str("randint: empty range [", low, ", ", high, ")"));
  Tensor t = Tensor::empty(shape, DType::i64);
  int64_t* out = t.data<int64_t>();
  for (int64_t i = 0; i < t.numel(); ++i)
    out[i] = low + static_cast<int64_t>(
                       rng.below(static_cast<uint64_t>(high - low), static_cast<uint64_t>(i)));
  return t;
}

Tensor randperm(int64_t n, const Rng& rng) {
  Tensor t = Tensor::empty({n}, DType::i64);
  int64_t* p = t.data<int64_t>();
  std::iota(p, p + n, int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {  // Fisher-Yates
    const auto j = static_cast<int64_t>(
        rng.below(static_cast<uint64_t>(i) + 1, static_cast<uint64_t>(i)));
    std::swap(p[i], p[j]);
  }
  return t;
}

Tensor sample_without_replacement(int64_t n, int64_t k, const Rng& rng) {
  if (k > n) throw Error(str("sample_without_replacement: ", k, " of ", n));
  Tensor t = Tensor::empty({k}, DType::i64);
  int64_t* out = t.data<int64_t>();
  // A Fisher-Yates shuffle of which only the first k places are made; moved values live in a map.
  std::unordered_map<int64_t, int64_t> moved;
  const auto value = [&](int64_t i) {
    const auto it = moved.find(i);
    return it == moved.end() ? i : it->second;
  };
  for (int64_t i = 0; i < k; ++i) {
    const int64_t j = i + static_cast<int64_t>(rng.below(static_cast<uint64_t>(n - i),
                                                         static_cast<uint64_t>(i)));
    out[i] = value(j);
    moved[j] = value(i);
  }
  return t;
}

}  // namespace mtcki

#include "tensor/rng.h"

#include <numeric>
#include <unordered_map>

#include "tensor/context.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/rng_kernels.h"

namespace mtcki {

namespace {

std::array<uint32_t, 4> array_of(const PhiloxWords& w) { return {w.v[0], w.v[1], w.v[2], w.v[3]}; }
// The kernels take a Rng by value.
void forbid_in_captured_steps() {
  if (!cuda::capturing()) return;
  const std::string where = context_path();
  throw CaptureError(
      str("StepGraph: every replay of a captured step would draw the same random numbers",
          where.empty() ? "" : " (in " + where + ")",
          "; draw them before the step and hand them in (StepInputs)"));
}
PhiloxWords words_at(const Rng& rng, uint64_t index) {
  return random_words(rng.seed, rng.stream, rng.step, index);
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  return array_of(philox_words({{c[0], c[1], c[2], c[3]}}, k[0], k[1]));
}

std::array<uint32_t, 4> Rng::bits(uint64_t index) const { return array_of(words_at(*this, index)); }

namespace {

// Element i uses counter i/2 for f64-quality pairs: one Philox call gives two values.
template <class Pair>
Tensor fill_pairs(const Shape& shape, const Rng& rng, DType dtype, const Pair& pair) {
  const DType compute = dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor t = Tensor::empty(shape, compute);
  const int64_t n = t.numel();
  MTCKI_DISPATCH_FLOAT(compute, "rand", T, {
    T* out = t.data<T>();
    parallel_for((n + 1) / 2, 1 << 12, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const RandomPair p = pair(words_at(rng, static_cast<uint64_t>(i)));
        out[2 * i] = static_cast<T>(p.a);
        if (2 * i + 1 < n) out[2 * i + 1] = static_cast<T>(p.b);
      }
    });
  });
  return t.to(dtype);
}

}  // namespace

double Rng::uniform(uint64_t index) const {
  const PhiloxWords w = words_at(*this, index);
  return unit53(w.v[0], w.v[1]);
}

uint64_t Rng::below(uint64_t n, uint64_t index) const {
  return below_of(words_at(*this, index), n);
}

Tensor rand(const Shape& shape, const Rng& rng, DType dtype, Device device) {
  if (device.is_cuda()) {
    forbid_in_captured_steps();
    const Tensor t = Tensor::empty(shape, dtype, device);
    rand_cuda(rng, t);
    return t;
  }
  if (dtype == DType::f64) return fill_pairs(shape, rng, dtype, Uniform53());
  return fill_pairs(shape, rng, dtype, Uniform24());
}

Tensor randn(const Shape& shape, const Rng& rng, DType dtype, Device device) {
  if (device.is_cuda()) {
    forbid_in_captured_steps();
    const Tensor t = Tensor::empty(shape, dtype, device);
    randn_cuda(rng, t);
    return t;
  }
  return fill_pairs(shape, rng, dtype, BoxMuller());
}

Tensor randint(int64_t low, int64_t high, const Shape& shape, const Rng& rng, Device device) {
  if (high <= low) throw Error(str("randint: empty range [", low, ", ", high, ")"));
  if (device.is_cuda()) forbid_in_captured_steps();
  Tensor t = Tensor::empty(shape, DType::i64, device);
  if (device.is_cuda()) {
    randint_cuda(low, static_cast<uint64_t>(high - low), rng, t);
    return t;
  }
  int64_t* out = t.data<int64_t>();
  for (int64_t i = 0; i < t.numel(); ++i)
    out[i] = low + static_cast<int64_t>(
                       rng.below(static_cast<uint64_t>(high - low), static_cast<uint64_t>(i)));
  return t;
}

Tensor randperm(int64_t n, const Rng& rng, Device device) {
  Tensor t = Tensor::empty({n}, DType::i64);
  int64_t* p = t.data<int64_t>();
  std::iota(p, p + n, int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {  // Fisher-Yates
    const auto j =
        static_cast<int64_t>(rng.below(static_cast<uint64_t>(i) + 1, static_cast<uint64_t>(i)));
    std::swap(p[i], p[j]);
  }
  return t.to(device);
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
    const int64_t j =
        i + static_cast<int64_t>(rng.below(static_cast<uint64_t>(n - i), static_cast<uint64_t>(i)));
    out[i] = value(j);
    moved[j] = value(i);
  }
  return t;
}

}  // namespace mtcki

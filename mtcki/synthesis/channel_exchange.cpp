#include "mtcki/synthesis/channel_exchange.h"

#include <numeric>

#include "tensor/ops/elementwise.h"

namespace mtcki {

Tensor draw_exchange(int64_t n, int64_t channels, bool exchanged, const Rng& rng) {
  const Tensor mask = Tensor::full({n, channels, 1, 1}, exchanged ? 0.0 : 1.0);
  if (!exchanged) return mask;
  auto* m = mask.data<float>();
  std::vector<int64_t> order(static_cast<size_t>(channels));
  for (int64_t i = 0; i < n; ++i) {
    std::iota(order.begin(), order.end(), 0);
    // The first half of a shuffle.
    for (int64_t k = 0; k < channels / 2; ++k) {
      const auto left = static_cast<uint64_t>(channels - k);
      const auto chosen =
          static_cast<size_t>(k) + rng.below(left, static_cast<uint64_t>(i * channels + k));
      std::swap(order[static_cast<size_t>(k)], order[chosen]);
      m[i * channels + order[static_cast<size_t>(k)]] = 1;
    }
  }
  return mask;
}

Tensor exchange_channels(const Tensor& own, const Tensor& other, const Tensor& mask) {
  return add(mul(own, mask), mul(other, add(neg(mask), 1.0)));
}

Tensor partners(int64_t n) {
  std::vector<int64_t> rows(static_cast<size_t>(n));
  std::iota(rows.rbegin(), rows.rend(), 0);
  return Tensor::from(rows, {n});
}

}  // namespace mtcki

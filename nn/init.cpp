#include "nn/init.h"

#include <cmath>

#include "tensor/op_error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::nn {

namespace {

int64_t fan(const Shape& weight, int dim) {
  if (weight.rank() < 2)
    throw ShapeError(str("init: fan of ", weight.to_string(), " needs at least two dimensions"));
  int64_t n = weight[dim];
  for (int i = 2; i < weight.rank(); ++i) n *= weight[i];
  return n;
}

}  // namespace

void uniform_(Variable& p, double low, double high, const Rng& rng) {
  p.data().copy_(add(mul(rand(p.shape(), rng, p.data().dtype()), high - low), low));
}

void normal_(Variable& p, double mean, double std, const Rng& rng) {
  p.data().copy_(add(mul(randn(p.shape(), rng, p.data().dtype()), std), mean));
}

void constant_(Variable& p, double value) { p.data().fill_(value); }

int64_t fan_in(const Shape& weight) { return fan(weight, 1); }
int64_t fan_out(const Shape& weight) { return fan(weight, 0); }

void kaiming_uniform_(Variable& p, double a, const Rng& rng) {
  const double bound = std::sqrt(6.0 / ((1.0 + a * a) * static_cast<double>(fan_in(p.shape()))));
  uniform_(p, -bound, bound, rng);
}

void kaiming_normal_fan_in_(Variable& p, const Rng& rng) {
  normal_(p, 0.0, std::sqrt(2.0 / static_cast<double>(fan_in(p.shape()))), rng);
}

void kaiming_normal_fan_out_(Variable& p, const Rng& rng) {
  normal_(p, 0.0, std::sqrt(2.0 / static_cast<double>(fan_out(p.shape()))), rng);
}

}  // namespace mtcki::nn

#include "nn/init.h"

#include <cmath>
#include <numeric>

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

void orthogonal_(Variable& p, double gain, const Rng& rng) {
  const Shape& shape = p.shape();
  if (shape.rank() != 2 || shape[0] > shape[1])
    throw ShapeError(
        str("orthogonal_: needs a matrix with no more rows than columns; got ", shape.to_string()));
  const int64_t width = shape[1];
  const Tensor drawn = randn(shape, rng, DType::f64);
  const auto row = [&](int64_t i) { return drawn.data<double>() + i * width; };
  const auto dot = [&](int64_t i, int64_t j) {
    return std::inner_product(row(i), row(i) + width, row(j), 0.0);
  };
  for (int64_t i = 0; i < shape[0]; ++i) {  // Gram and Schmidt
    for (int64_t j = 0; j < i; ++j) {
      const double along = dot(i, j) / (gain * gain);
      for (int64_t k = 0; k < width; ++k) row(i)[k] -= along * row(j)[k];
    }
    const double scale = gain / std::sqrt(dot(i, i));
    for (int64_t k = 0; k < width; ++k) row(i)[k] *= scale;
  }
  p.data().copy_(drawn.to(p.data().dtype()));
}

}  // namespace mtcki::nn

// Sample values and the index helpers of the references.
#include <algorithm>
#include <map>
#include <numeric>

#include "tensor/rng.h"
#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

Tensor mapped(const Shape& shape, uint64_t seed, const std::function<double(double)>& f) {
  Tensor t = rand(shape, Rng{11, rng_stream("op_table"), seed}, DType::f64);
  double* p = t.data<double>();
  for (int64_t i = 0; i < t.numel(); ++i) p[i] = static_cast<float>(f(p[i]));
  return t;
}

}  // namespace

Tensor noise(const Shape& shape, uint64_t seed) {
  return mapped(shape, seed, [](double u) { return 2 * u - 1; });
}

Tensor away_from_zero(const Shape& shape, uint64_t seed) {
  return mapped(shape, seed, [](double u) { return u < 0.5 ? -0.1 - 2 * u : 2 * u - 0.9; });
}

Tensor positive(const Shape& shape, uint64_t seed) {
  return mapped(shape, seed, [](double u) { return 0.5 + 1.5 * u; });
}

Tensor distinct(const Shape& shape, uint64_t seed) {
  const Tensor order = randperm(shape.numel(), Rng{11, rng_stream("op_table"), seed});
  Tensor t = Tensor::empty(shape, DType::f64);
  for (int64_t i = 0; i < t.numel(); ++i)  // steps of 1/8: exact in bf16 too for up to 256 values
    t.data<double>()[i] = static_cast<double>(order.data<int64_t>()[i] - t.numel() / 2) / 8;
  return t;
}

Tensor constant(const Tensor& host, const Variable& like) {
  const Device device = like.data().device();
  if (!host.defined() || device.is_cpu()) return host;
  static std::map<std::string, Tensor> kept;
  const std::string key =
      host.describe() + std::string(static_cast<const char*>(host.raw()), host.nbytes());
  const auto it = kept.find(key);
  return it != kept.end() ? it->second : kept.emplace(key, host.to(device)).first->second;
}

void for_each_index(const Shape& shape, const std::function<void(const Index&)>& f) {
  Index i(static_cast<size_t>(shape.rank()), 0);
  for (int64_t n = shape.numel(); n > 0; --n) {
    f(i);
    for (int d = shape.rank() - 1; d >= 0; --d) {
      const size_t u = static_cast<size_t>(d);
      if (++i[u] < shape[d]) break;
      i[u] = 0;
    }
  }
}

Tensor fill(const Shape& shape, const std::function<double(const Index&)>& formula) {
  Tensor t = Tensor::empty(shape, DType::f64);
  double* p = t.data<double>();
  for_each_index(shape, [&](const Index& i) { *p++ = formula(i); });
  return t;
}

double at(const Tensor& x, const Index& i) {
  const size_t rank = static_cast<size_t>(x.rank());
  int64_t offset = 0;
  for (size_t d = 0; d < rank; ++d) {
    const int64_t size = x.size(static_cast<int>(d)), index = i[i.size() - rank + d];
    offset = offset * size + (size == 1 ? 0 : index);
  }
  return x.data<double>()[offset];
}

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  for (const auto& family :
       {elementwise_rows(), shape_rows(), product_rows(), norm_rows(), image_rows(), loss_rows()})
    rows.insert(rows.end(), family.begin(), family.end());
  return rows;
}

}  // namespace mtcki::op_table

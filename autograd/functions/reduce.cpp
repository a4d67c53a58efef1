#include "tensor/ops/reduce.h"

#include <algorithm>
#include <limits>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {

// Shape of the reduction with the reduced dimensions kept as 1.
Shape kept(const Shape& shape, const std::vector<int>& dims) {
  Shape out = shape;
  for (int i = 0; i < shape.rank(); ++i) {
    const bool reduced = dims.empty() || std::ranges::any_of(dims, [&](int d) {
                           return (d < 0 ? d + shape.rank() : d) == i;
                         });
    if (reduced) out.set(i, 1);
  }
  return out;
}

}  // namespace

Variable sum(const Variable& x, const std::vector<int>& dims, bool keepdim) {
  Recorder r("sum", {x});
  const Tensor y = sum(x.data(), dims, keepdim);
  if (r.needs(0))
    r.grad(0, [s = x.shape(), layout = x.data().layout(), k = kept(x.shape(), dims)](
                  const Tensor& gy) { return broadcast_to(gy.reshape(k), s, layout); });
  return r.finish(y);
}

Variable mean(const Variable& x, const std::vector<int>& dims, bool keepdim) {
  Recorder r("mean", {x});
  const Tensor y = mean(x.data(), dims, keepdim);
  if (r.needs(0)) {
    const Shape k = kept(x.shape(), dims);
    const double scale = static_cast<double>(k.numel()) / static_cast<double>(x.numel());
    r.grad(0, [s = x.shape(), layout = x.data().layout(), k, scale](const Tensor& gy) {
      return broadcast_to(mul(gy, scale).reshape(k), s, layout);
    });
  }
  return r.finish(y);
}

Variable Variable::sum(const std::vector<int>& dims, bool keepdim) const {
  return mtcki::sum(*this, dims, keepdim);
}
Variable Variable::mean(const std::vector<int>& dims, bool keepdim) const {
  return mtcki::mean(*this, dims, keepdim);
}

Variable norm(const Variable& x) {
  Recorder r("norm", {x});
  const Tensor y = norm(x.data());
  if (r.needs(0))  // x = 0: 0/tiny, the gradient 0
    r.grad(0, [x = r.save(x.data()), y = r.save(y)](const Tensor& gy) {
      const double least = y.get().dtype() == DType::f64 ? std::numeric_limits<double>::min()
                                                         : std::numeric_limits<float>::min();
      const Tensor tiny = Tensor::full({}, least, y.get().dtype(), y.get().device());
      return mul(div(x.get(), maximum(y.get(), tiny)), gy);
    });
  return r.finish(y);
}

}  // namespace mtcki

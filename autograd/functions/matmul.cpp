#include "tensor/ops/matmul.h"

#include "autograd/functions.h"
#include "autograd/recorder.h"

namespace mtcki {

Variable matmul(const Variable& a, const Variable& b) {
  Recorder r("matmul", {a, b});
  const Tensor y = matmul(a.data(), b.data());
  if (r.needs(0))
    r.grad(0,
           [b = r.save(b.data())](const Tensor& gy) { return matmul(gy, b.get(), false, true); });
  if (r.needs(1))
    r.grad(1,
           [a = r.save(a.data())](const Tensor& gy) { return matmul(a.get(), gy, true, false); });
  return r.finish(y);
}

Variable linear(const Variable& x, const Variable& w, const Variable& bias) {
  Recorder r("linear", {x, w, bias});
  const Tensor y = linear(x.data(), w.data(), bias.data());
  if (r.needs(0))
    r.grad(0, [w = r.save(w.data())](const Tensor& gy) { return linear_grad_input(gy, w.get()); });
  if (r.needs(1))
    r.grad(1, [x = r.save(x.data())](const Tensor& gy) { return linear_grad_weight(gy, x.get()); });
  if (r.needs(2)) r.grad(2, [](const Tensor& gy) { return linear_grad_bias(gy); });
  return r.finish(y);
}

}  // namespace mtcki

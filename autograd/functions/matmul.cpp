#include "tensor/ops/matmul.h"

#include "autograd/functions.h"
#include "autograd/recorder.h"

namespace mtcki {

Variable matmul(const Variable& a, const Variable& b, Math math) {
  Recorder r("matmul", {a, b});
  const Tensor y = matmul(a.data(), b.data(), false, false, math);
  if (r.needs(0))
    r.grad(0, [b = r.save(b.data()), math](const Tensor& gy) {
      return matmul(gy, b.get(), false, true, math);
    });
  if (r.needs(1))
    r.grad(1, [a = r.save(a.data()), math](const Tensor& gy) {
      return matmul(a.get(), gy, true, false, math);
    });
  return r.finish(y);
}

Variable linear(const Variable& x, const Variable& w, const Variable& bias, Math math,
                bool constant_weight) {
  Recorder r("linear", {x, w, bias});
  const Tensor y = linear(x.data(), w.data(), bias.data(), math, constant_weight);
  if (r.needs(0))
    r.grad(0, [w = r.save(w.data()), math, constant_weight](const Tensor& gy) {
      return linear_grad_input(gy, w.get(), math, constant_weight);
    });
  if (r.needs(1))
    r.grad(1, [x = r.save(x.data()), math, dtype = w.data().dtype()](const Tensor& gy) {
      return linear_grad_weight(gy, x.get(), math, dtype);
    });
  if (r.needs(2))
    r.grad(2,
           [dtype = bias.data().dtype()](const Tensor& gy) { return linear_grad_bias(gy, dtype); });
  return r.finish(y);
}

}  // namespace mtcki

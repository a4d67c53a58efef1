#include "tensor/ops/elementwise.h"

#include <numbers>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/ops/op_util.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

Variable add(const Variable& a, const Variable& b) {
  Recorder r("add", {a, b});
  const Tensor y = add(a.data(), b.data());
  if (r.needs(0)) r.grad(0, [s = a.shape()](const Tensor& gy) { return sum_to(gy, s); });
  if (r.needs(1)) r.grad(1, [s = b.shape()](const Tensor& gy) { return sum_to(gy, s); });
  return r.finish(y);
}

Variable sub(const Variable& a, const Variable& b) {
  Recorder r("sub", {a, b});
  const Tensor y = sub(a.data(), b.data());
  if (r.needs(0)) r.grad(0, [s = a.shape()](const Tensor& gy) { return sum_to(gy, s); });
  if (r.needs(1)) r.grad(1, [s = b.shape()](const Tensor& gy) { return neg(sum_to(gy, s)); });
  return r.finish(y);
}

Variable mul(const Variable& a, const Variable& b) {
  Recorder r("mul", {a, b});
  const Tensor y = mul(a.data(), b.data());
  if (r.needs(0))
    r.grad(0, [b = r.save(b.data()), s = a.shape()](const Tensor& gy) {
      return sum_to(mul(gy, b.get()), s);
    });
  if (r.needs(1))
    r.grad(1, [a = r.save(a.data()), s = b.shape()](const Tensor& gy) {
      return sum_to(mul(gy, a.get()), s);
    });
  return r.finish(y);
}

Variable div(const Variable& a, const Variable& b) {
  Recorder r("div", {a, b});
  const Tensor y = div(a.data(), b.data());
  if (r.needs(0))
    r.grad(0, [b = r.save(b.data()), s = a.shape()](const Tensor& gy) {
      return sum_to(div(gy, b.get()), s);
    });
  if (r.needs(1))  // d(a/b)/db = -(a/b)/b; a sum of terms of both signs, so none of them is bf16
    r.grad(1, [a = r.save(a.data()), b = r.save(b.data()), s = b.shape()](const Tensor& gy) {
      const Tensor divisor = at_least_f32(b.get()), quotient = div(at_least_f32(a.get()), divisor);
      return sum_to(neg(div(mul(at_least_f32(gy), quotient), divisor)), s).to(gy.dtype());
    });
  return r.finish(y);
}

Variable add(const Variable& a, double s) {
  Recorder r("add", {a});
  const Tensor y = add(a.data(), s);
  if (r.needs(0)) r.grad(0, [](const Tensor& gy) { return gy; });
  return r.finish(y);
}

Variable mul(const Variable& a, double s) {
  Recorder r("mul", {a});
  const Tensor y = mul(a.data(), s);
  if (r.needs(0)) r.grad(0, [s](const Tensor& gy) { return mul(gy, s); });
  return r.finish(y);
}

Variable neg(const Variable& x) {
  Recorder r("neg", {x});
  const Tensor y = neg(x.data());
  if (r.needs(0)) r.grad(0, [](const Tensor& gy) { return neg(gy); });
  return r.finish(y);
}

Variable exp(const Variable& x) {
  Recorder r("exp", {x});
  const Tensor y = exp(x.data());
  if (r.needs(0)) r.grad(0, [y = r.save(y)](const Tensor& gy) { return mul(gy, y.get()); });
  return r.finish(y);
}

Variable log(const Variable& x) {
  Recorder r("log", {x});
  const Tensor y = log(x.data());
  if (r.needs(0)) r.grad(0, [x = r.save(x.data())](const Tensor& gy) { return div(gy, x.get()); });
  return r.finish(y);
}

Variable sqrt(const Variable& x) {
  Recorder r("sqrt", {x});
  const Tensor y = sqrt(x.data());
  if (r.needs(0))
    r.grad(0, [y = r.save(y)](const Tensor& gy) { return div(mul(gy, 0.5), y.get()); });
  return r.finish(y);
}

Variable square(const Variable& x) {
  Recorder r("square", {x});
  const Tensor y = square(x.data());
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data())](const Tensor& gy) { return mul(mul(gy, x.get()), 2.0); });
  return r.finish(y);
}

Variable abs(const Variable& x) {
  Recorder r("abs", {x});
  const Tensor y = abs(x.data());
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data())](const Tensor& gy) { return mul(gy, sign(x.get())); });
  return r.finish(y);
}

Variable relu(const Variable& x) {
  Recorder r("relu", {x});
  const Tensor y = relu(x.data());
  if (r.needs(0)) r.grad(0, [y = r.save(y)](const Tensor& gy) { return relu_grad(gy, y.get()); });
  return r.finish(y);
}

Variable leaky_relu(const Variable& x, double negative_slope) {
  Recorder r("leaky_relu", {x});
  const Tensor y = leaky_relu(x.data(), negative_slope);
  if (r.needs(0))  // the sign of y is the sign of x only for a positive slope
    r.grad(0, [s = r.save(negative_slope > 0 ? y : x.data()), negative_slope](const Tensor& gy) {
      return leaky_relu_grad(gy, s.get(), negative_slope);
    });
  return r.finish(y);
}

Variable clamp(const Variable& x, double low, double high) {
  Recorder r("clamp", {x});
  const Tensor y = clamp(x.data(), low, high);
  if (r.needs(0))
    r.grad(0, [y = r.save(y), low, high](const Tensor& gy) {
      return clamp_grad(gy, y.get(), low, high);
    });
  return r.finish(y);
}

Variable relu6(const Variable& x) { return clamp(x, 0.0, 6.0); }

Variable sigmoid(const Variable& x) {
  Recorder r("sigmoid", {x});
  const Tensor y = sigmoid(x.data());
  if (r.needs(0))
    r.grad(0, [y = r.save(y)](const Tensor& gy) { return sigmoid_grad(gy, y.get()); });
  return r.finish(y);
}

Variable tanh(const Variable& x) {
  Recorder r("tanh", {x});
  const Tensor y = tanh(x.data());
  if (r.needs(0)) r.grad(0, [y = r.save(y)](const Tensor& gy) { return tanh_grad(gy, y.get()); });
  return r.finish(y);
}

Variable erf(const Variable& x) {
  Recorder r("erf", {x});
  const Tensor y = erf(x.data());
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data())](const Tensor& gy) {
      return mul(mul(gy, exp(neg(square(x.get())))), 2 * std::numbers::inv_sqrtpi);
    });
  return r.finish(y);
}

}  // namespace mtcki

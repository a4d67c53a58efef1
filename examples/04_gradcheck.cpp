// A new differentiable op in a dozen lines, and the check that its gradient is right. softplus(x) =
// log(1 + exp(x)) has the derivative sigmoid(x). The closure keeps what it needs with save(): the
// engine then notices a write into it and frees it after use. gradcheck compares with central
// differences in f64, and catches the wrong version.
//
// Expect: softplus: right \(worst relative error below 1e-6\), wrong version: found
#include <cstdio>

#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "autograd/recorder.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"

using namespace mtcki;

namespace {

Variable softplus(const Variable& x, bool wrong = false) {
  Recorder r("softplus", {x});
  const Tensor y = log(add(exp(x.data()), 1.0));
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data()), wrong](const Tensor& gy) {
      return mul(gy, wrong ? tanh(x.get()) : sigmoid(x.get()));
    });
  return r.finish(y);
}

}  // namespace

int main() {
  const Variable x(randn({4, 5}, Rng{1, rng_stream("example"), 0}, DType::f64), true);
  const auto check = [&x](bool wrong) {
    return gradcheck([wrong](const std::vector<Variable>& in) { return softplus(in[0], wrong); },
                     {x});
  };
  const GradcheckReport right = check(false), wrong = check(true);
  std::printf("wrong version: %s\n", wrong.message.c_str());
  std::printf("softplus: %s (worst relative error %s 1e-6), wrong version: %s\n",
              right.ok ? "right" : "wrong", right.worst < 1e-6 ? "below" : "above",
              wrong.ok ? "missed" : "found");
  return right.ok && !wrong.ok ? 0 : 1;
}

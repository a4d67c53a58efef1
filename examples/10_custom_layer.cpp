// An op of one's own: Swish, y = x sigmoid(beta x), with a trainable beta per channel. The forward
// is written with tensor ops, the backward beside it; gradcheck compares it with finite
// differences, and a Module makes it a layer with a named parameter.
//
// Expect: gradcheck ok, beta learned
#include <cstdio>

#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "autograd/recorder.h"
#include "nn/layers.h"
#include "optim/optimizer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

using namespace mtcki;

// x [N, C], beta [C]. With s = sigmoid(beta x):
//   dy/dx = s + beta x s (1 - s)      dy/dbeta = x^2 s (1 - s), summed over N
Variable swish(const Variable& x, const Variable& beta) {
  Recorder r("swish", {x, beta});
  const Tensor s = sigmoid(mul(x.data(), beta.data()));
  const Tensor y = mul(x.data(), s);
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data()), beta = r.save(beta.data()), s = r.save(s)](const Tensor& gy) {
      const Tensor slope = mul(s.get(), add(neg(s.get()), 1.0));  // s (1 - s)
      return mul(gy, add(s.get(), mul(mul(x.get(), beta.get()), slope)));
    });
  if (r.needs(1))
    r.grad(1, [x = r.save(x.data()), s = r.save(s)](const Tensor& gy) {
      const Tensor slope = mul(s.get(), add(neg(s.get()), 1.0));
      return sum(mul(gy, mul(square(x.get()), slope)), {0});
    });
  return r.finish(y);
}

class Swish : public nn::Module {
 public:
  explicit Swish(int64_t channels)
      : beta(register_parameter("beta", Tensor::full({channels}, 1.0))) {}
  Variable& beta;

 protected:
  Variable forward(const Variable& x) override { return swish(x, beta); }
};

int main() {
  const GradcheckReport report =
      gradcheck([](const std::vector<Variable>& in) { return swish(in[0], in[1]); },
                {Variable(randn({4, 3}, Rng{1, 1, 0}, DType::f64), true),
                 Variable(randn({3}, Rng{1, 2, 0}, DType::f64), true)});
  if (!report.ok) {
    std::printf("gradcheck failed: %s\n", report.message.c_str());
    return 1;
  }

  // Recover the beta of a target function by training the layer alone.
  Swish layer(3);
  const Tensor x = randn({128, 3}, Rng{2, 1, 0});
  const Tensor truth = Tensor::from(std::vector<float>{0.5f, 1.5f, 3.0f}, {3});
  const Variable target = swish(x, truth);
  const auto optimizer = optim::make_adam(layer, {.lr = 0.05});
  for (int step = 0; step < 400; ++step) {
    optimizer->zero_grad();
    mean(square(layer(x) - target)).backward();
    optimizer->step();
  }
  const bool learned = allclose(layer.beta.data(), truth, 1e-2, 1e-2);
  const std::vector<float> b = layer.beta.data().to_vector<float>();
  std::printf("beta %.3f %.3f %.3f (0.5 1.5 3)\n", b[0], b[1], b[2]);
  std::printf("gradcheck ok, beta %s\n", learned ? "learned" : "not learned");
  return learned ? 0 : 1;
}

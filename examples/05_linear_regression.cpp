// Fit y = 3 a - 2 b + 0.5 from noisy samples: a layer, a loss, an optimiser, a loop.
// Expect: y = 3.00 a - 2.00 b \+ 0.50
#include <cstdio>

#include "autograd/functions.h"
#include "nn/layers.h"
#include "optim/optimizer.h"
#include "tensor/ops/elementwise.h"

using namespace mtcki;

int main() {
  const Tensor x = randn({256, 2}, Rng{7, rng_stream("data"), 0});
  const Tensor noise = mul(randn({256, 1}, Rng{7, rng_stream("noise"), 0}), 0.01);
  const Tensor truth = Tensor::from(std::vector<float>{3.0f, -2.0f}, {1, 2});

  nn::Init init(1);  // all random numbers come from named, seeded streams
  nn::Linear model(2, 1, true, init);
  const Variable y = add(add(linear(x, truth, {}), 0.5), Variable(noise));

  const auto optimizer = optim::make_sgd(model, {.lr = 0.1, .momentum = 0.9});
  for (int step = 0; step < 200; ++step) {
    optimizer->zero_grad();
    const Variable loss = mean(square(model(x) - y));
    loss.backward();
    optimizer->step();
    if (step % 40 == 0) std::printf("step %3d  loss %.6f\n", step, loss.item());
  }
  const std::vector<float> w = model.weight.data().to_vector<float>();
  std::printf("y = %.2f a - %.2f b + %.2f\n", w[0], -w[1], model.bias->data().item());
  return 0;
}

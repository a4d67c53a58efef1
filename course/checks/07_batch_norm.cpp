// Judges exercise 7: the numbers of the page, finite differences, and the library's batch norm.
#include "autograd/gradcheck.h"
#include "course/checks/judge.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

Variable leaf(const Tensor& value) { return Variable(value, true); }

void check(Judge& judge) {
  const Variable x = leaf(Tensor::from(std::vector<double>{1, 3, 5, 7}, {4, 1}));
  const Variable gamma = leaf(Tensor::full({1}, 2.0, DType::f64));
  const Variable beta = leaf(Tensor::zeros({1}, DType::f64));
  const Variable y = batch_norm(x, gamma, beta, 0.0);
  y.backward(Tensor::from(std::vector<double>{1, 0, 0, 0}, {4, 1}));
  judge.close("gamma's gradient for g = (1 0 0 0)", gamma.grad(),
              Tensor::full({1}, -1.341641, DType::f64), 1e-6);
  judge.close("beta's gradient", beta.grad(), Tensor::full({1}, 1.0, DType::f64));
  judge.close("x's gradient", x.grad(),
              Tensor::from(std::vector<double>{0.268328, -0.357771, -0.089443, 0.178885}, {4, 1}),
              1e-5);

  const Variable a = leaf(randn({6, 3}, Rng{7, 1, 0}, DType::f64));
  const Variable g = leaf(randn({3}, Rng{7, 2, 0}, DType::f64));
  const Variable b = leaf(randn({3}, Rng{7, 3, 0}, DType::f64));
  const GradcheckReport report = gradcheck(
      [](const std::vector<Variable>& in) { return batch_norm(in[0], in[1], in[2], 1e-5); },
      {a, g, b});
  judge.check("gradcheck with respect to x, gamma and beta", report.ok, report.message);

  const Tensor gy = randn({6, 3}, Rng{7, 4, 0}, DType::f64);
  batch_norm(a, g, b, 1e-5).backward(gy);
  const Tensor mine = a.grad().clone();
  Variable again = leaf(a.data().clone());
  const Tensor mean = Tensor::zeros({3}, DType::f64), var = Tensor::full({3}, 1.0, DType::f64);
  batch_norm_train(again, g, b, mean, var, 0.1, 1e-5).backward(gy);
  judge.close("x's gradient as batch_norm_train has it", mine, again.grad());
}

const Chapter chapter(7, "Batch normalisation", check);

}  // namespace

}  // namespace mtcki::course

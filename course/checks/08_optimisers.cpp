// Judges exercise 8: the numbers of the page, then the library's optimisers over ten steps.
#include "course/checks/judge.h"
#include "optim/optimizer.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

void by_hand(Judge& judge) {
  // f(p) = p²/2 has the gradient p.
  std::vector<double> p{1}, b{0};
  sgd_step(p, {p[0]}, b, 1, {.lr = 0.1, .momentum = 0.9});
  judge.equal("p²/2 from 1, SGD with momentum: p after step 1", p[0], 0.9);
  sgd_step(p, {p[0]}, b, 2, {.lr = 0.1, .momentum = 0.9});
  judge.equal("after step 2", p[0], 0.72);
  sgd_step(p, {p[0]}, b, 3, {.lr = 0.1, .momentum = 0.9});
  judge.equal("after step 3", p[0], 0.486);

  std::vector<double> q{1, 1}, m{0, 0}, v{0, 0};
  adam_step(q, {1000, 0.001}, m, v, 1, {.lr = 0.1, .eps = 1e-8});
  judge.equal("Adam's first step has the length of lr for a gradient of 1000", q[0], 0.9, 1e-4);
  judge.equal("and for one of 0.001", q[1], 0.9, 1e-4);
}

// Ten steps with random gradients, by the exercise and by the library.
template <class Step>
void against(Judge& judge, const std::string& name, optim::Optimizer& optimizer, Variable& there,
             const Step& step) {
  std::vector<double> p = there.data().to_vector<double>();
  for (int64_t t = 1; t <= 10; ++t) {
    const Tensor g = randn({5}, Rng{8, 2, static_cast<uint64_t>(t)}, DType::f64);
    there.set_grad(g.clone());
    optimizer.step();
    step(p, g.to_vector<double>(), t);
  }
  judge.close(name, Tensor::from(p, {5}), there.data(), 1e-10);
}

void check(Judge& judge) {
  by_hand(judge);
  for (const bool nesterov : {false, true}) {
    Variable there(randn({5}, Rng{8, 1, 0}, DType::f64), true);
    const auto sgd =
        optim::make_sgd({{{{"p", there}}}},
                        {.lr = 0.05, .momentum = 0.8, .weight_decay = 0.01, .nesterov = nesterov});
    std::vector<double> b(5, 0.0);
    const SgdRule rule{0.05, 0.8, 0.01, nesterov};
    against(judge, nesterov ? "ten steps of Nesterov's SGD" : "ten steps of SGD", *sgd, there,
            [&](std::vector<double>& p, const std::vector<double>& g, int64_t t) {
              sgd_step(p, g, b, t, rule);
            });
  }
  Variable there(randn({5}, Rng{8, 1, 0}, DType::f64), true);
  const auto adam = optim::make_adam({{{{"p", there}}}}, {.lr = 0.05});
  std::vector<double> m(5, 0.0), v(5, 0.0);
  against(judge, "ten steps of Adam", *adam, there,
          [&](std::vector<double>& p, const std::vector<double>& g, int64_t t) {
            adam_step(p, g, m, v, t, {.lr = 0.05});
          });
}

const Chapter chapter(8, "Optimisers", check);

}  // namespace

}  // namespace mtcki::course

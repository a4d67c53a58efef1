// Judges exercise 5: values, names, gradients, and that the layer trains.
#include "autograd/gradcheck.h"
#include "course/checks/judge.h"
#include "optim/optimizer.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

void check(Judge& judge) {
  const auto layer = make_layer_norm(4, DType::f64);
  const Tensor x = Tensor::from(std::vector<double>{1, 2, 3, 4, 10, 10, 20, 20}, {2, 4});
  const Variable y = (*layer)(Variable(x));
  judge.close(
      "the rows (1 2 3 4) and (10 10 20 20)", y.data(),
      Tensor::from(std::vector<double>{-1.3416, -0.4472, 0.4472, 1.3416, -1, -1, 1, 1}, {2, 4}),
      1e-4);

  const auto names = layer->named_parameters();
  judge.check("its parameters are weight and bias",
              names.size() == 2 && names[0].first == "weight" && names[1].first == "bias");
  layer->named_parameters()[0].second->set_data(Tensor::from(std::vector<double>{1, 2, 3, 4}, {4}));
  layer->named_parameters()[1].second->set_data(Tensor::full({4}, 0.5, DType::f64));
  judge.close("with weight 1 2 3 4 and bias 0.5: row 1", (*layer)(Variable(x)).data().slice(0, 1),
              Tensor::from(std::vector<double>{-0.8416, -0.3944, 1.8416, 5.8665}, {1, 4}), 1e-4);

  const GradcheckReport report =
      gradcheck([&](const std::vector<Variable>& in) { return (*layer)(in[0]); },
                {Variable(randn({3, 4}, Rng{5, 1, 0}, DType::f64), true)});
  judge.check("gradcheck with respect to x", report.ok, report.message);

  // Which weight and bias were used? They are found again by training.
  const auto learner = make_layer_norm(4, DType::f64);
  const Tensor data = randn({32, 4}, Rng{5, 2, 0}, DType::f64);
  const auto adam = optim::make_adam(*learner, {.lr = 0.1});
  for (int step = 0; step < 200; ++step) {
    adam->zero_grad();
    const Variable target((*layer)(Variable(data)).data());
    mean(square((*learner)(Variable(data)) - target)).backward();
    adam->step();
  }
  judge.close("weights found by training", learner->named_parameters()[0].second->data(),
              layer->named_parameters()[0].second->data(), 0.02);
}

const Chapter chapter(5, "Layers", check);

}  // namespace

}  // namespace mtcki::course

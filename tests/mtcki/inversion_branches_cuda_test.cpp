// The image gradient of several teachers that are asked in one step, each on a stream of its own, is
// that of the CPU: also where terms of the loss share the gradient that they pass on, because the
// product of weight and share happens to be 1 for one teacher and not for another.
#include <cmath>

#include "mtcki/synthesis/inversion_loss.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::kGpu;
using testing::sample;

class InversionBranchesCuda : public testing::CudaTest {};

struct Member {
  std::string model;
  double weight = 1.0;
};
struct Case {
  const char* name;
  std::vector<Member> members;
  std::vector<size_t> asked;
  double bn;
  BnReduce reduce;
};

std::unique_ptr<Teachers> team(Device device, const std::vector<Member>& members) {
  auto out = std::make_unique<Teachers>();
  for (size_t m = 0; m < members.size(); ++m) {
    const nn::ModelSpec spec{members[m].model, 1, 28, 10};
    nn::Init init(m + 1);
    auto net = nn::make_classifier(spec, init);
    uint64_t i = 0;  // statistics as a trained network has them: not 0 and 1
    for (nn::BatchNorm2d* bn : net->batch_norms()) {
      bn->running_mean.copy_(mul(randn(bn->running_mean.shape(), Rng{1, 3, i++}), 0.1));
      bn->running_var.copy_(add(rand(bn->running_var.shape(), Rng{1, 3, i++}), 0.5));
    }
    out->add(std::make_unique<Teacher>(
        Teacher::Options{str("t", m), spec, {{0.3}, {0.4}}, members[m].weight, -1},
        std::move(net)));
  }
  out->to(device);
  return out;
}

std::vector<float> image_gradient(Device device, const Case& k) {
  const auto teachers = team(device, k.members);
  SynthesisConfig c;
  c.loss["bn"] = k.bn;
  c.bn_reduce = k.reduce;
  c.loss["cls"] = 1.0;
  c.loss["cr"] = 0;
  c.pad = 2;
  c.teachers_per_step = static_cast<int64_t>(k.asked.size());
  InversionLoss loss(*teachers, c, 8, 1);
  InversionLoss::Step s;
  s.labels = Tensor::from<int64_t>({0, 1, 2, 3, 4}, {5}).to(device);
  s.views = draw_views(5, 28, 28, 2, true, 0.5, Rng{3, 4, 5}).to(device);
  s.asked = k.asked;
  const Variable x(mul(sample({5, 1, 28, 28}, 7, DType::f32), 0.3).to(device), true);
  StepInputs inputs(device);
  loss.draw(s, Rng{6, 7, 8}, inputs);
  MetricRing values;
  loss.evaluate(x, s, values).total.backward();
  return x.grad().to_vector<float>();
}

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
    scale += b[i] * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / scale);
}

TEST_F(InversionBranchesCuda, TheImageGradientIsThatOfTheCpu) {
  const std::string small = "vgg8_w0.125";
  const Case cases[] = {
      // 15 and 5 batch norms: shares of 0.5 and 2.
      {"two networks, mean over layers", {{"resnet14"}, {small}}, {0, 1}, 10, BnReduce::layer},
      {"of four, the first and the last",
       {{small}, {small}, {small}, {small, 3.0}},
       {0, 3},
       10,
       BnReduce::sum},
      {"the heavier one first",
       {{small, 3.0}, {small}, {small}, {small}},
       {0, 3},
       10,
       BnReduce::sum},
      {"bn 1", {{"resnet14"}, {small}}, {0, 1}, 1, BnReduce::layer},
  };
  for (const Case& k : cases)
    EXPECT_LT(relative_distance(image_gradient(kGpu, k), image_gradient(Device::cpu(), k)), 1e-4)
        << k.name;
}

}  // namespace
}  // namespace mtcki

// Separate two interleaved half-moons with a small network: a Module of one's own, Adam, a
// learning-rate schedule, evaluation without gradients, a picture of the decision.
// Expect: accuracy 100\.0 %
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "autograd/functions.h"
#include "data/formats/image_file.h"
#include "nn/layers.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

using namespace mtcki;

class Mlp : public nn::Module {
 public:
  explicit Mlp(nn::Init& init)
      : fc1_(add<nn::Linear>("fc1", 2, 32, true, init)),
        fc2_(add<nn::Linear>("fc2", 32, 32, true, init)),
        fc3_(add<nn::Linear>("fc3", 32, 2, true, init)) {}

 protected:
  Variable forward(const Variable& x) override { return fc3_(relu(fc2_(relu(fc1_(x))))); }

 private:
  nn::Linear &fc1_, &fc2_, &fc3_;
};

struct Moons {
  Tensor points, labels;
};
Moons make_moons(int64_t n, uint64_t seed) {
  const Rng position{seed, rng_stream("position"), 0};
  const std::vector<float> noise =
      randn({n, 2}, Rng{seed, rng_stream("noise"), 0}).to_vector<float>();
  std::vector<float> points;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; ++i) {
    const double angle = 3.14159265 * position.uniform(static_cast<uint64_t>(i));
    const bool upper = i % 2 == 0;
    const double px = upper ? std::cos(angle) : 1.0 - std::cos(angle);
    const double py = upper ? std::sin(angle) : 0.5 - std::sin(angle);
    points.push_back(static_cast<float>(px) + 0.05f * noise[static_cast<size_t>(2 * i)]);
    points.push_back(static_cast<float>(py) + 0.05f * noise[static_cast<size_t>(2 * i + 1)]);
    labels.push_back(upper ? 0 : 1);
  }
  return {Tensor::from(points, {n, 2}), Tensor::from(labels, {n})};
}

// The plane around the moons, the brighter the surer the network is of the second one, and their
// points in black and white.
Tensor picture(Mlp& model, const Moons& moons) {
  constexpr int64_t kHeight = 250, kWidth = 400;  // 100 pixels per unit; (-1.5, 1.5) is top left
  std::vector<float> plane;
  for (int64_t i = 0; i < kHeight * kWidth; ++i) {
    plane.push_back(0.01f * static_cast<float>(i % kWidth) - 1.5f);
    plane.push_back(1.5f - 0.01f * static_cast<float>(i / kWidth));
  }
  const Tensor sure = softmax(model(Tensor::from(plane, {kHeight * kWidth, 2})).data());
  Tensor image = unit_to_u8(narrow(sure, 1, 1, 2).reshape({1, kHeight, kWidth}));
  const std::vector<float> at = moons.points.to_vector<float>();
  for (size_t i = 0; i + 1 < at.size(); i += 2) {
    const int64_t x = std::lround(100 * (at[i] + 1.5)), y = std::lround(100 * (1.5 - at[i + 1]));
    if (x >= 0 && x < kWidth && y >= 0 && y < kHeight)
      image.data<uint8_t>()[y * kWidth + x] = i % 4 == 0 ? 255 : 0;
  }
  return image;
}

int main() {
  const Moons train = make_moons(512, 1), test = make_moons(512, 2);
  nn::Init init(3);
  Mlp model(init);

  constexpr int kSteps = 300;
  const auto optimizer = optim::make_adam(model, {});
  optim::Schedule schedule;
  schedule.base_lr = 0.01;
  schedule.total_steps = kSteps;  // cosine to zero
  for (int step = 0; step < kSteps; ++step) {
    optimizer->set_lr(schedule.at(step));
    optimizer->zero_grad();
    const Variable loss = cross_entropy(model(train.points), train.labels);
    loss.backward();
    optimizer->step();
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", step, loss.item());
  }

  const NoGradScope no_grad;
  const std::string path = (std::filesystem::temp_directory_path() / "mtcki_moons.png").string();
  data::write_png(path, picture(model, test));
  std::printf("what the network decides where: %s\n", path.c_str());
  const int64_t correct = count_topk_correct(model(test.points).data(), test.labels, 1);
  std::printf("accuracy %.1f %%\n", 100.0 * static_cast<double>(correct) / 512.0);
  return 0;
}

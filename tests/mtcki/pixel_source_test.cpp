// The source of DeepInversion: pixels that are optimised themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "mtcki/synthesis/synthesizer.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

class PixelSource : public ::testing::Test {
 protected:
  PixelSource() {
    c.batches = 2;
    c.batch_size = 12;
    c.g_steps = 4;
    c.pad = 2;
    c.source = "pixels";
    c.views = Views::roll;
    c.best = Best::last;
    c.lr_g = 0.5;  // large: without clipping most pixels would leave the range
    c.loss["cr"] = 0;
    o.channels = 1;
    o.image_size = 28;
    o.most_batches = 4;
    o.seed = 3;
    o.normalization = {{0.3}, {0.4}};
    const nn::ModelSpec spec{"resnet8", 1, o.image_size, 10};
    nn::Init init(1);
    teachers.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, o.normalization, 1.0, -1},
                                           nn::make_classifier(spec, init)));
  }

  SynthesisConfig c;
  Synthesizer::Options o;
  Teachers teachers;
};

// After every step pixels lie where the image is in [0,1], the last iterate is kept, and a batch goes on
// exactly from its middle.
TEST_F(PixelSource, PixelsAreOptimisedInsideTheirRange) {
  Synthesizer whole(teachers, c, o), begun(teachers, c, o), resumed(teachers, c, o);
  while (!whole.batch_done()) whole.step();
  StageState state;
  for (int i = 0; i < 2; ++i) begun.step();
  save(begun, state);
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  const Tensor& pixels = entry(state.tensors, "source.pixels");
  int at_an_end = 0;
  for (const float v : pixels.to_vector<float>()) {
    EXPECT_GE(v, -0.75f - 1e-6f);  // (0 − 0.3)/0.4
    EXPECT_LE(v, 1.75f + 1e-6f);   // (1 − 0.3)/0.4
    at_an_end += v < -0.7499f || v > 1.7499f;
  }
  EXPECT_GT(at_an_end, 0);
  load(resumed, state);
  while (!resumed.batch_done()) resumed.step();
  EXPECT_TRUE(identical(resumed.finish().images, whole.finish().images));
}

// The authors' CIFAR-10 code does not clip; images are cut where they become bytes.
TEST_F(PixelSource, PixelsLeaveTheirRangeWithoutClipping) {
  c.clip = false;
  Synthesizer s(teachers, c, o);
  for (int i = 0; i < 2; ++i) s.step();
  StageState state;
  save(s, state);
  const auto pixels = entry(state.tensors, "source.pixels").to_vector<float>();
  EXPECT_TRUE(std::any_of(pixels.begin(), pixels.end(), [](float v) { return v > 1.76f; }));
}

// Adam's first moments: with beta1 = 0 the second step does not remember the first.
TEST_F(PixelSource, MomentsDecayAsConfigured) {
  const auto after_two_steps = [&](double beta1) {
    c.beta1 = beta1;
    Synthesizer s(teachers, c, o);
    for (int i = 0; i < 2; ++i) s.step();
    StageState state;
    save(s, state);
    return entry(state.tensors, "source.pixels").clone();
  };
  EXPECT_FALSE(identical(after_two_steps(0.5), after_two_steps(0.9)));
}

// In the field's code the best images are the pixels themselves, so that whichever step is chosen, the
// last one is kept.
TEST_F(PixelSource, TheBestImagesHaveTheirOwnMemory) {
  c.best = Best::total;
  c.g_steps = 6;
  c.lr_g = 5;  // so large that the loss rises again
  std::vector<double> losses;
  const auto run = [&] {
    Synthesizer s(teachers, c, o);
    losses.clear();
    while (!s.batch_done())
      for (const auto& [name, value] : s.step())
        if (name == "loss") losses.push_back(value);
    return s.finish().images;
  };
  const Tensor best = run();
  const int64_t least = std::min_element(losses.begin(), losses.end()) - losses.begin();
  ASSERT_LT(least, 5);
  c.best = Best::last;
  EXPECT_FALSE(identical(run(), best));
  c.g_steps = least + 1;
  EXPECT_TRUE(identical(run(), best));
}

}  // namespace
}  // namespace mtcki

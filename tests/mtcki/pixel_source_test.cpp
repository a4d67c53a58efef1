// The source of DeepInversion: pixels that are optimised themselves.
#include <gtest/gtest.h>

#include <memory>

#include "mtcki/synthesis/synthesizer.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

// After every step pixels lie where the image is in [0,1], the last iterate is kept, and a batch goes on
// exactly from its middle.
TEST(PixelSource, PixelsAreOptimisedInsideTheirRange) {
  constexpr int64_t kSize = 28;
  SynthesisConfig c;
  c.batches = 2;
  c.batch_size = 12;
  c.g_steps = 4;
  c.pad = 2;
  c.source = "pixels";
  c.views = Views::roll;
  c.best = Best::last;
  c.lr_g = 0.5;  // large: without clipping most pixels would leave the range
  c.loss["cr"] = 0;
  Synthesizer::Options o;
  o.channels = 1;
  o.image_size = kSize;
  o.most_batches = 4;
  o.seed = 3;
  o.normalization = {{0.3}, {0.4}};
  Teachers teachers;
  const nn::ModelSpec spec{"resnet8", 1, kSize, 10};
  nn::Init init(1);
  teachers.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, o.normalization, 1.0, -1},
                                         nn::make_classifier(spec, init)));
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

}  // namespace
}  // namespace mtcki

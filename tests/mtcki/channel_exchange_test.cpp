// Channels of two images' maps exchanged: in the student's rounds (SpaceshipNet) and of the images that a
// generator's batches keep.
#include "mtcki/synthesis/channel_exchange.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "autograd/functions.h"
#include "mtcki/config/config.h"
#include "mtcki/synthesis/synthesizer.h"
#include "nn/models/model.h"
#include "nn/state_dict.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki {
namespace {

TEST(ChannelExchange, HalfOfTheChannelsAreOnesOwn) {
  const int64_t n = 5, channels = 7;
  const Tensor own = randn({n, channels, 2, 3}, Rng{1, 2, 3}),
               other = index_select(own, partners(n)),
               mask = draw_exchange(n, channels, true, Rng{4, 5, 6});
  const std::vector<float> x = own.to_vector<float>(), y = other.to_vector<float>(),
                           z = exchange_channels(own, other, mask).to_vector<float>();
  std::set<std::vector<bool>> choices;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<bool> kept;
    for (int64_t c = 0; c < channels; ++c) {
      const auto at = static_cast<size_t>((i * channels + c) * 6);
      const auto partner = static_cast<size_t>(((n - 1 - i) * channels + c) * 6);
      kept.push_back(mask.to_vector<float>()[static_cast<size_t>(i * channels + c)] == 1);
      for (size_t k = 0; k < 6; ++k) {
        EXPECT_EQ(y[at + k], x[partner + k]);
        EXPECT_EQ(z[at + k], kept.back() ? x[at + k] : x[partner + k]);
      }
    }
    EXPECT_EQ(std::count(kept.begin(), kept.end(), true), 3) << "floor(7/2)";
    choices.insert(kept);
  }
  EXPECT_GT(choices.size(), 2u) << "drawn for every image";
  // With oneself it is the identity; so is none.
  EXPECT_TRUE(identical(exchange_channels(own, own, mask), own));
  EXPECT_TRUE(identical(
      exchange_channels(own, other, draw_exchange(n, channels, false, Rng{4, 5, 6})), own));
}

TEST(ChannelExchange, EveryChannelIsChosenAsOften) {
  std::vector<double> count(6, 0);
  for (uint64_t i = 0; i < 200; ++i) {
    const auto mask = draw_exchange(4, 6, true, Rng{7, 8, i}).to_vector<float>();
    for (size_t k = 0; k < mask.size(); ++k) count[k % 6] += mask[k];
  }
  for (const double c : count) EXPECT_NEAR(c, 400, 60);  // of 800; four deviations are 57
}

TEST(GeneratorParts, AreThePass) {
  for (const char* name : {"cmi", "large", "dcgan"}) {
    nn::Init init(3);
    const auto net = nn::make_generator({name, 5, 4, 1, 32}, init);
    const Variable z(randn({3, 5}, Rng{1, 1, 1}));
    const Tensor whole = (*net)(z).data();
    const nn::StateDict state = net->state_dict();
    std::vector<Tensor> maps;
    const Tensor parts = generate(*net, z, &maps).data();
    EXPECT_TRUE(identical(whole, parts)) << name;
    EXPECT_EQ(maps.size(), static_cast<size_t>(net->maps())) << name;
    // Behind the last map there is no batch norm: what it decodes to is the image, also in eval mode.
    const auto last = static_cast<int64_t>(maps.size()) - 1;
    EXPECT_TRUE(identical(decode_frozen(*net, last, maps.back()), whole)) << name;
    EXPECT_FALSE(identical(decode_frozen(*net, 0, maps.front()), whole)) << name;
    net->train();
    for (size_t i = 0; i < maps.size(); ++i)
      EXPECT_TRUE(identical(net->decode(static_cast<int64_t>(i), Variable(maps[i])).data(), whole))
          << name << " map " << i;
  }
}

class Exchange : public ::testing::Test {
 protected:
  Exchange() {
    const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
    nn::Init init(1);
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, {{0.3}, {0.4}}, 1.0, -1},
                                            nn::make_classifier(spec, init)));
    config_.batch_size = 12;
    config_.g_steps = 3;
    config_.nz = 8;
    config_.ngf = 4;
    config_.loss["cr"] = 0;
  }
  Synthesizer::Batch batch(double exchange, int64_t interrupt_after = 0) {
    SynthesisConfig c = config_;
    c.exchange = exchange;
    Synthesizer::Options o;
    o.channels = 1;
    o.image_size = 28;
    o.normalization = {{0.3}, {0.4}};
    o.most_batches = 1;
    auto synthesizer = std::make_unique<Synthesizer>(teachers_, c, o);
    while (!synthesizer->batch_done()) {
      synthesizer->step();
      if (interrupt_after-- != 1) continue;
      StageState state;
      save(*synthesizer, state);
      for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
      synthesizer = std::make_unique<Synthesizer>(teachers_, c, o);
      load(*synthesizer, state);
    }
    return synthesizer->finish();
  }
  static int64_t changed(const Tensor& a, const Tensor& b) {
    int64_t n = 0;
    for (int64_t i = 0; i < a.size(0); ++i)
      n += identical(a.slice(i, i + 1), b.slice(i, i + 1)) ? 0 : 1;
    return n;
  }

  Teachers teachers_;
  SynthesisConfig config_;
};

TEST_F(Exchange, AShareOfTheKeptImagesBecomesHybrids) {
  const Tensor plain = batch(0).images, some = batch(0.5).images, all = batch(1).images;
  EXPECT_EQ(changed(plain, all), 12);
  EXPECT_GT(changed(plain, some), 1);
  EXPECT_LT(changed(plain, some), 11);
  for (int64_t i = 0; i < 12; ++i) {  // what differs are the same hybrids
    if (changed(plain.slice(i, i + 1), some.slice(i, i + 1)) == 0) continue;
    EXPECT_EQ(changed(all.slice(i, i + 1), some.slice(i, i + 1)), 0);
  }
  EXPECT_EQ(changed(batch(0.5, 2).images, some), 0) << "after an interruption in the batch";
}

TEST_F(Exchange, MapsOfTheBestStepAreKeptWithTheImages) {
  config_.source = "maps";
  const Synthesizer::Batch whole = batch(0.7), cut = batch(0.7, 2);
  ASSERT_EQ(whole.maps.size(), 3u);
  EXPECT_EQ(whole.maps[0].shape(), (Shape{12, 8, 7, 7}));
  EXPECT_EQ(whole.maps[2].shape(), (Shape{12, 4, 28, 28}));
  EXPECT_TRUE(identical(whole.images, cut.images));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(whole.maps[i], cut.maps[i])) << i;
}

// Between batches the generator goes on, its Adam begins anew, and the latents stay what was drawn.
TEST_F(Exchange, TheSourceOfMapsTrainsTheGeneratorAlone) {
  config_.source = "maps";
  const auto source = make_source(config_, {1, 28, {{0.3}, {0.4}}, 5, {}});
  const auto state = [&] {
    StageState s;
    State saving = State::saving(s);
    source->visit(saving, true);
    for (auto& [name, tensor] : s.tensors) tensor = tensor.clone();
    return s;
  };
  source->begin_batch(0);
  const StageState before = state();
  source->zero_grad();
  source->images({0, 12}).sum().backward();
  source->update();
  const StageState after = state();
  EXPECT_TRUE(identical(entry(before.tensors, "latents"), entry(after.tensors, "latents")));
  EXPECT_FALSE(identical(entry(before.tensors, "weights.l1.0.weight"),
                         entry(after.tensors, "weights.l1.0.weight")));
  source->begin_batch(1);
  const StageState next = state();
  EXPECT_FALSE(identical(entry(next.tensors, "latents"), entry(after.tensors, "latents")));
  EXPECT_TRUE(identical(entry(next.tensors, "weights.l1.0.weight"),
                        entry(after.tensors, "weights.l1.0.weight")));
  for (const auto& [name, tensor] : next.tensors)
    if (name.ends_with("exp_avg")) {
      for (const float v : tensor.to_vector<float>()) ASSERT_EQ(v, 0) << name;
    }
}

// avg <- d avg + (1 − d) w after every step; images for a student come from it.
TEST_F(Exchange, ImagesForTheStudentComeFromAveragedWeights) {
  config_.source = "sampler";
  config_.g_ema = 0.75;
  const auto source = make_source(config_, {1, 28, {{0.3}, {0.4}}, 5, {}});
  SynthesisConfig plain_config = config_;
  plain_config.g_ema = 0;
  const auto plain = make_source(plain_config, {1, 28, {{0.3}, {0.4}}, 5, {}});
  const auto state = [](ImageSource& s) {
    StageState out;
    State saving = State::saving(out);
    s.visit(saving, true);
    for (auto& [name, tensor] : out.tensors) tensor = tensor.clone();
    return out;
  };
  const std::string name = "l1.0.bias";
  Tensor want = entry(state(*plain).tensors, "weights." + name);
  for (int64_t step = 0; step < 3; ++step)
    for (ImageSource* s : {source.get(), plain.get()}) {
      s->begin_batch(step);
      s->zero_grad();
      s->images({0, 12}).sum().backward();
      s->update();
      if (s != plain.get()) continue;
      want = add(mul(want, 0.75), mul(entry(state(*plain).tensors, "weights." + name), 0.25));
    }
  const StageState averaged = state(*source);
  EXPECT_TRUE(allclose(entry(averaged.tensors, "average.ema." + name), want, 1e-6, 1e-7));
  EXPECT_TRUE(identical(entry(averaged.tensors, "weights." + name),
                        entry(state(*plain).tensors, "weights." + name)))
      << "training does not see the average";
  const Tensor drawn = source->draw_samples(4, Rng{1, 2, 3});
  const Tensor a = source->samples(drawn);
  EXPECT_FALSE(identical(a, plain->samples(drawn)));
  // Loaded elsewhere it makes the same images.
  const auto again = make_source(config_, {1, 28, {{0.3}, {0.4}}, 6, {}});
  again->begin_batch(0);
  State loading = State::loading(averaged);
  again->visit(loading, true);
  EXPECT_TRUE(identical(again->samples(drawn), a));
}

}  // namespace
}  // namespace mtcki

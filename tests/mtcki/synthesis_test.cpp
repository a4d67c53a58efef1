// Stage A: what a step asks of the teachers, what it leaves alone, and that it resumes exactly.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "autograd/functions.h"
#include "mtcki/synthesis/synthesizer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"

namespace mtcki::synthesis_test {
namespace {

constexpr int64_t kSize = 28;

struct Team {
  Teachers teachers;
  std::vector<nn::Classifier*> nets;  // borrowed, to look inside
};

// Statistics as a trained network has them: not 0 and 1.
void settle(nn::Classifier& net, uint64_t seed) {
  uint64_t i = 0;
  for (nn::BatchNorm2d* bn : net.batch_norms()) {
    bn->running_mean.copy_(mul(randn(bn->running_mean.shape(), Rng{seed, 3, i++}), 0.1));
    bn->running_var.copy_(add(rand(bn->running_var.shape(), Rng{seed, 3, i++}), 0.5));
  }
}

// names: registry names; seeds: equal seeds of one architecture are copies.
Team team(const std::vector<std::string>& names, const std::vector<uint64_t>& seeds,
          const std::vector<double>& weights = {}) {
  Team out;
  for (size_t m = 0; m < names.size(); ++m) {
    const nn::ModelSpec spec{names[m], 1, kSize, 10};
    nn::Init init(seeds[m]);
    auto net = nn::make_classifier(spec, init);
    settle(*net, seeds[m]);
    out.nets.push_back(net.get());
    Teacher::Options o{str("t", m), spec, {{0.3}, {0.4}}, weights.empty() ? 1.0 : weights[m], -1};
    out.teachers.add(std::make_unique<Teacher>(o, std::move(net)));
  }
  return out;
}

SynthesisConfig tiny() {
  SynthesisConfig c;
  c.batches = 2;
  c.batch_size = 12;
  c.g_steps = 4;
  c.nz = 8;
  c.ngf = 8;
  c.bank_size = 20;
  c.bank_draw = 16;
  c.head_dim = 8;
  c.pad = 2;
  return c;
}

Synthesizer::Options options(uint64_t seed = 3) {
  Synthesizer::Options o;
  o.channels = 1;
  o.image_size = kSize;
  o.most_batches = 4;
  o.seed = seed;
  return o;
}

InversionLoss::Step step_of(const SynthesisConfig& c, const std::vector<size_t>& asked) {
  InversionLoss::Step s;
  s.asked = asked;
  std::vector<int64_t> y;
  for (int64_t i = 0; i < c.batch_size; ++i) y.push_back(i % 10);
  s.labels = Tensor::from(y, {c.batch_size});
  s.views = draw_views(c.batch_size, kSize, kSize, c.pad, c.flip, c.min_crop, Rng{1, 2, 0});
  return s;
}

Variable images_of(const SynthesisConfig& c) {
  return Variable(rand({c.batch_size, 1, kSize, kSize}, Rng{9, 9, 9}), true);
}

// The terms of one step, unweighted; backward: of their sum.
std::map<std::string, double> terms(InversionLoss& loss, const Variable& images,
                                    InversionLoss::Step step, bool backward = false) {
  StepInputs inputs;
  loss.draw(step, Rng{}, inputs);
  MetricRing ring;
  const InversionLoss::Result r = loss.evaluate(images, step, ring);
  if (backward) r.total.backward();
  ring.commit(0);
  const Values values = ring.read();
  return {values.begin(), values.end()};
}

TEST(Teacher, RefusesToBeTrained) {
  Team t = team({"vgg8_w0.125"}, {1});
  const Tensor x = Tensor::zeros({2, 1, kSize, kSize});
  EXPECT_NO_THROW(t.teachers[0].forward_no_grad(x));
  t.nets[0]->batch_norms()[1]->train();
  EXPECT_THROW(t.teachers[0].forward_no_grad(x), Error);
  t.nets[0]->eval();
  t.nets[0]->set_requires_grad(true);
  EXPECT_THROW(t.teachers[0].view(Variable(x), Teacher::kNone), Error);
}

TEST(Teacher, NormalisesInsideTheGraph) {
  Team t = team({"vgg8_w0.125"}, {1});
  const Tensor x = rand({2, 1, kSize, kSize}, Rng{1, 1, 1});
  const Tensor direct = (*t.nets[0])(Variable(mul(add(x, -0.3), 1 / 0.4))).data();
  EXPECT_TRUE(allclose(t.teachers[0].forward_no_grad(x).logits.data(), direct, 1e-4, 1e-5));
}

TEST(Teacher, ViewsGiveTheMomentsOfTheirBnInputs) {
  Team t = team({"resnet8"}, {1});
  Teacher& teacher = t.teachers[0];
  const Variable x(rand({4, 1, kSize, kSize}, Rng{1, 1, 1}), true);
  const Teacher::View view = teacher.view(x, Teacher::kBn);
  ASSERT_EQ(view.bn_moments.size(), teacher.batch_norms().size());
  for (size_t i = 0; i < view.bn_moments.size(); ++i) {
    const ChannelMoments want = channel_moments(view.bn_inputs[i].data());
    const double count =
        static_cast<double>(view.bn_inputs[i].numel()) / static_cast<double>(want.mean.numel());
    const ChannelMoments got = moments_of(view.bn_moments[i], count);
    EXPECT_TRUE(allclose(got.mean.to(DType::f32), want.mean, 1e-6, 1e-6)) << i;
    EXPECT_TRUE(allclose(got.var.to(DType::f32), want.var, 1e-6, 1e-6)) << i;
  }
  const Teacher::View taps = teacher.view(x, Teacher::kBn | Teacher::kTapsOnly);
  EXPECT_FALSE(taps.logits.defined() || taps.bn_moments[0].defined());
  EXPECT_TRUE(identical(taps.bn_inputs.back().data(), view.bn_inputs.back().data()));
}

// A plain question leaves nothing between a convolution and its batch norm.
TEST(Teacher, AsksWithFusedBatchNorms) {
  Team t = team({"resnet8"}, {1});
  const Tensor x = rand({4, 1, kSize, kSize}, Rng{1, 1, 1});
  t.teachers[0].view(Variable(x), Teacher::kBn | Teacher::kStages);
  profiler::start();
  t.teachers[0].forward_no_grad(x);
  profiler::stop();
  for (const auto& e : profiler::events()) EXPECT_NE(e.op, "batch_norm_eval");
}

TEST(Teacher, NeedsOneMeanPerChannel) {
  nn::Init init(1);
  const nn::ModelSpec spec{"vgg8_w0.125", 1, kSize, 10};
  EXPECT_THROW(Teacher({"x", spec, {{0.1, 0.2}, {1, 1}}, 1, -1}, nn::make_classifier(spec, init)),
               UsageError);
}

TEST(Teachers, BitIdenticalAfterSynthesis) {
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
  const nn::StateDict a = t.teachers[0].state_dict(), b = t.teachers[1].state_dict();
  Synthesizer s(t.teachers, tiny(), options());
  while (!s.batch_done()) s.step();
  s.finish();
  const auto same = [](const nn::StateDict& x, const nn::StateDict& y) {
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(identical(x[i].second, y[i].second)) << x[i].first;
  };
  same(a, t.teachers[0].state_dict());
  same(b, t.teachers[1].state_dict());
}

TEST(Synthesis, NoWorkForTermsOfWeightZero) {
  for (const double cr : {0.0, 0.8}) {
    SynthesisConfig c = tiny();
    c.loss["cr"] = cr;
    Team t = team({"vgg8_w0.125"}, {1});
    int bodies = 0, heads = 0;
    const auto modules = t.nets[0]->named_modules();
    std::vector<nn::HookHandle> hooks;
    for (const auto& [path, m] : modules) {
      if (path == "block0.0")
        hooks.push_back(m->add_before_hook([&](const nn::Module&, const Variable&) { ++bodies; }));
      if (path == "classifier")
        hooks.push_back(m->add_before_hook([&](const nn::Module&, const Variable&) { ++heads; }));
    }
    ASSERT_EQ(hooks.size(), 2u);
    Synthesizer s(t.teachers, c, options());
    s.step();
    EXPECT_EQ(bodies, cr > 0 ? 2 : 1);  // one forward per view
    EXPECT_EQ(heads, 1);                // the local view ends at the last tapped layer
  }
}

TEST(Synthesis, BalancedLabels) {
  Team t = team({"vgg8_w0.125"}, {1});
  SynthesisConfig c = tiny();
  c.batch_size = 23;
  c.loss["cr"] = 0;
  c.g_steps = 1;
  Synthesizer s(t.teachers, c, options());
  s.step();
  std::vector<int> count(10, 0);
  for (const int64_t y : s.finish().labels.to_vector<int64_t>()) ++count[static_cast<size_t>(y)];
  for (const int k : count) EXPECT_GE(k, 2);
}

TEST(Synthesis, CopiesOfOneTeacherEqualOne) {
  SynthesisConfig c = tiny();
  c.cr_mode = CrMode::first;
  Team one = team({"resnet8"}, {5}), three = team({"resnet8", "resnet8", "resnet8"}, {5, 5, 5});
  InversionLoss a(one.teachers, c, 100, 7), b(three.teachers, c, 100, 7);
  const Variable xa = images_of(c), xb = images_of(c);
  const auto ta = terms(a, xa, step_of(c, {0}), true);
  auto tb = terms(b, xb, step_of(c, {0, 1, 2}), true);
  for (const auto& [name, value] : ta) EXPECT_NEAR(tb[name], value, 1e-4 * std::abs(value)) << name;
  EXPECT_TRUE(allclose(xb.grad(), xa.grad(), 1e-3, 1e-6));
}

TEST(Synthesis, OrderOfTeachersOnlyMattersToTheContrast) {
  SynthesisConfig c = tiny();
  for (const char* key : {"consensus", "balance", "activation", "tv"}) c.loss[key] = 1;
  Team ab = team({"resnet8", "vgg8_w0.125"}, {1, 2}), ba = team({"vgg8_w0.125", "resnet8"}, {2, 1});
  InversionLoss a(ab.teachers, c, 100, 7), b(ba.teachers, c, 100, 7);
  const auto ta = terms(a, images_of(c), step_of(c, {0, 1}));
  auto tb = terms(b, images_of(c), step_of(c, {0, 1}));
  ASSERT_EQ(ta.size(), 8u);  // the contrast with its chance
  for (const auto& [name, value] : ta) {
    if (name == "history_contrast") continue;
    EXPECT_NEAR(tb[name], value, 1e-4 * std::abs(value)) << name;
  }
}

TEST(Synthesis, RandomTeachersAreUnbiased) {
  SynthesisConfig c = tiny();
  c.loss["cr"] = 0;
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2}, {1, 3});
  InversionLoss loss(t.teachers, c, 100, 7);
  const auto full = terms(loss, images_of(c), step_of(c, {0, 1}));
  std::map<std::string, double> mean;
  for (size_t m = 0; m < 2; ++m)
    for (const auto& [name, v] : terms(loss, images_of(c), step_of(c, {m}))) mean[name] += v / 2;
  for (const auto& [name, v] : full) EXPECT_NEAR(mean[name], v, 1e-4 * std::abs(v)) << name;
}

TEST(Synthesis, InitReductionMakesFirstLossesEqual) {
  SynthesisConfig c = tiny();
  c.loss["cr"] = 0;
  c.bn_reduce = BnReduce::init;
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
  InversionLoss loss(t.teachers, c, 100, 7);
  EXPECT_FALSE(loss.ready());
  terms(loss, images_of(c), step_of(c, {0, 1}));
  ASSERT_TRUE(loss.ready());
  std::vector<double> each;
  for (size_t m = 0; m < 2; ++m)
    each.push_back(terms(loss, images_of(c), step_of(c, {m}))["bn_statistics"]);
  EXPECT_NEAR(each[0], each[1], 1e-3 * each[0]);
}

TEST(Synthesis, LayerReductionAndMomentum) {
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
  const auto l0 = static_cast<double>(t.teachers[0].batch_norms().size());
  const auto l1 = static_cast<double>(t.teachers[1].batch_norms().size());
  BnStatisticsLoss layer(t.teachers, BnReduce::layer, 0.0);
  EXPECT_NEAR(layer.rho(0) * l0, layer.rho(1) * l1, 1e-9);
  EXPECT_EQ(BnStatisticsLoss(t.teachers, BnReduce::sum, 0.0).rho(0), 1.0);

  // Momentum: the first batch is plain; later the EMA is blended in, κ = 1 would ignore the images.
  BnStatisticsLoss plain(t.teachers, BnReduce::sum, 0.0), ema(t.teachers, BnReduce::sum, 0.9);
  const auto value = [&](BnStatisticsLoss& loss, uint64_t seed) {
    const NoGradScope no_grad;
    const Variable x(rand({8, 1, kSize, kSize}, Rng{seed, 0, 0}));
    return loss.layers(0, t.teachers[0].view(x, Teacher::kBn)).item();
  };
  EXPECT_EQ(value(plain, 1), value(ema, 1));
  ema.draw({0}, Rng{});  // asked in this batch
  ema.finish_batch({}, {});
  const double blended = value(ema, 2);
  EXPECT_NE(blended, value(plain, 2));
  BnStatisticsLoss restored(t.teachers, BnReduce::sum, 0.9);
  StageState state;
  save(ema, state);
  load(restored, state);
  EXPECT_EQ(value(restored, 2), blended);
}

TEST(Synthesis, ContrastModesAndFeatures) {
  for (const CrMode mode : {CrMode::cat, CrMode::each, CrMode::first})
    for (const CrFeatures features : {CrFeatures::stage, CrFeatures::bn}) {
      SynthesisConfig c = tiny();
      c.cr_mode = mode;
      c.cr_features = features;
      c.bank_dtype = DType::bf16;
      Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
      Synthesizer s(t.teachers, c, options());
      for (int b = 0; b < 3; ++b) {  // 12 rows each into a ring of 20: it wraps
        while (!s.batch_done())
          for (const auto& [name, v] : s.step())
            EXPECT_TRUE(std::isfinite(v)) << static_cast<int>(mode) << name;
        s.finish();
      }
      EXPECT_EQ(s.contrast()->heads(), mode == CrMode::each ? 2u : 1u);
      EXPECT_EQ(s.contrast()->bank(0).filled(), 20);
    }
}

TEST(Synthesis, StepsInBf16) {
  for (const CrFeatures features : {CrFeatures::stage, CrFeatures::bn}) {
    SynthesisConfig c = tiny();
    c.cr_features = features;
    Synthesizer::Options o = options();
    o.compute.precision = nn::Precision::bf16;
    Team t = team({"resnet8", "vgg8_w0.5"}, {1, 2});
    t.teachers.set_precision(nn::Precision::bf16);
    Synthesizer s(t.teachers, c, o);
    for (int batch = 0; batch < 2; ++batch) {  // the second with a bank
      while (!s.batch_done())
        for (const auto& [name, value] : s.step()) EXPECT_TRUE(std::isfinite(value)) << name;
      s.finish();
      for (const Tensor& phi : s.contrast()->latest().local)
        EXPECT_EQ(phi.dtype(), DType::f32) << static_cast<int>(features);
    }
  }
}

TEST(Synthesis, RandomTeachersWithTheirContrast) {
  SynthesisConfig c = tiny();
  c.cr_mode = CrMode::each;
  c.teachers_per_step = 1;
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
  Synthesizer s(t.teachers, c, options());
  while (!s.batch_done()) s.step();
  s.finish();  // both banks get rows, although the best step asked one teacher
  for (size_t h = 0; h < 2; ++h) EXPECT_EQ(s.contrast()->bank(h).filled(), c.batch_size);
  c.cr_mode = CrMode::cat;
  EXPECT_THROW(Synthesizer(t.teachers, c, options()), UsageError);
}

TEST(Synthesis, GlobalSideOfTheContrastGetsNoGradient) {
  // With the contrast as the only loss and a local view that shows the upper left quarter alone, no
  // other pixel moves.
  SynthesisConfig c = tiny();
  c.loss["bn"] = c.loss["cls"] = 0;
  c.pad = 0;
  c.flip = false;
  Team t = team({"vgg8_w0.125"}, {1});
  InversionLoss loss(t.teachers, c, 100, 7);
  InversionLoss::Step s = step_of(c, {0});
  std::vector<float> box;
  for (int64_t i = 0; i < c.batch_size; ++i) box.insert(box.end(), {0, 0, 14, 14});
  s.views.box = Tensor::from(box, {c.batch_size, 4});
  const Variable x = images_of(c);
  terms(loss, x, s, true);
  const auto g = x.grad().to_vector<float>();
  double inside = 0, outside = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(g.size()); ++i) {
    const int64_t row = i / kSize % kSize, column = i % kSize;
    (row <= 14 && column <= 14 ? inside : outside) += std::abs(g[static_cast<size_t>(i)]);
  }
  EXPECT_GT(inside, 0);
  EXPECT_EQ(outside, 0);
}

TEST(Synthesis, ResumesInsideABatch) {
  for (const BnReduce reduce : {BnReduce::layer, BnReduce::init}) {
    SynthesisConfig c = tiny();
    c.bn_mmt = 0.9;
    c.bn_reduce = reduce;
    c.g_life = 2;
    Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
    const auto finish = [](Synthesizer& s) {
      while (!s.batch_done()) s.step();
      return s.finish();
    };
    Synthesizer whole(t.teachers, c, options());
    finish(whole);
    const HistoryContrast::Features first = whole.contrast()->latest();
    const auto second = finish(whole);
    const Tensor phi = whole.contrast()->latest().local[0];
    const auto third = finish(whole);

    Synthesizer begun(t.teachers, c, options());
    finish(begun);
    begun.step();
    begun.step();
    StageState state;
    save(begun, state);
    Synthesizer resumed(t.teachers, c, options());
    load(resumed, state);
    resumed.contrast()->add(first.local, first.global);  // the bank comes from its shards
    const auto again = finish(resumed);
    EXPECT_TRUE(identical(resumed.contrast()->latest().local[0], phi));
    const auto last = finish(resumed);
    EXPECT_TRUE(identical(again.images, second.images)) << static_cast<int>(reduce);
    EXPECT_TRUE(identical(again.labels, second.labels));
    EXPECT_TRUE(identical(last.images, third.images)) << static_cast<int>(reduce);
  }
}

// The images kept are those of the step that `best` names, also where the disagreement, which
// selects nothing, is the only term.
TEST(Synthesis, WhichImagesAreKept) {
  Team t = team({"vgg8_w0.125"}, {1});
  const auto images = [&](Best best, int64_t steps, bool only_disagreement) {
    SynthesisConfig c = tiny();
    c.best = best;
    c.g_steps = steps;
    c.lr_g = 0.05;
    c.loss["cr"] = 0;
    c.adv_mode = AdvMode::js;
    Student student("s", {"vgg8_w0.125", 1, kSize, 10}, {{0.3}, {0.4}}, 9);
    if (only_disagreement) c.loss["bn"] = c.loss["cls"] = 0, c.loss["adv"] = 1;
    Synthesizer s(t.teachers, c, options());
    while (!s.batch_done()) s.step(only_disagreement ? &student : nullptr);
    return s.finish().images;
  };
  EXPECT_FALSE(identical(images(Best::select, 8, true), images(Best::select, 1, true)));
  EXPECT_FALSE(identical(images(Best::last, 8, false), images(Best::last, 7, false)));
}

// The EMA of a teacher that a batch did not ask stays, and one that it asked before an interruption
// moves.
TEST(Synthesis, ResumesThePartOfTheTeachersThatWasAsked) {
  SynthesisConfig c = tiny();
  c.batches = 5;
  c.bn_mmt = 0.5;
  c.loss["cr"] = 0;
  c.teachers_per_step = 1;
  const std::vector<std::string> names(4, "vgg8_w0.125");
  const auto saved = [](Synthesizer& s) {
    StageState state;
    save(s, state);
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();  // as a file would hold it
    return state;
  };
  for (const uint64_t seed : {1, 2, 3}) {
    Team t = team(names, {1, 2, 3, 4});
    Synthesizer whole(t.teachers, c, options(seed));
    std::vector<Tensor> images;
    StageState between, inside;
    for (int64_t b = 0; b < c.batches; ++b) {
      while (!whole.batch_done()) {
        if (b == 2 && whole.step_in_batch() == 2) inside = saved(whole);
        whole.step();
      }
      images.push_back(whole.finish().images);
      if (b == 1) between = saved(whole);
    }
    for (const StageState* state : {&between, &inside}) {
      Synthesizer resumed(t.teachers, c, options(seed));
      load(resumed, *state);
      for (size_t b = 2; b < images.size(); ++b) {
        while (!resumed.batch_done()) resumed.step();
        EXPECT_TRUE(identical(resumed.finish().images, images[b]))
            << "seed " << seed << " batch " << b << (state == &inside ? ", inside one" : "");
      }
    }
  }
}

TEST(Synthesis, ATermThatNeedsAStudentSaysSo) {
  Team t = team({"vgg8_w0.125"}, {1});
  SynthesisConfig c = tiny();
  c.loss["adv"] = 1;
  Synthesizer s(t.teachers, c, options());
  EXPECT_THROW(s.step(), UsageError);
  EXPECT_THROW(c.loss["advv"], Error);
}

TEST(Synthesis, NanNamesTermAndStep) {
  Team t = team({"vgg8_w0.125"}, {1});
  for (auto& [name, p] : t.nets[0]->named_parameters())
    if (name == "classifier.bias") p->set_data(Tensor::full({10}, std::nan("")));
  Synthesizer s(t.teachers, tiny(), options());
  try {
    s.step();
    FAIL() << "NaN was not noticed";
  } catch (const NumericError& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("class_prior"), std::string::npos) << text;
    EXPECT_NE(text.find("batch 0, step 0"), std::string::npos) << text;
  }
}

TEST(Synthesis, TheLossFalls) {
  SynthesisConfig c = tiny();
  c.g_steps = 25;
  c.lr_g = 5e-3;
  c.loss["cr"] = 0;
  Team t = team({"resnet8", "vgg8_w0.125"}, {1, 2});
  Synthesizer s(t.teachers, c, options());
  double first = 0, last = 0;  // means over five steps: the views are random
  for (int i = 0; i < 25; ++i) {
    const double loss = s.step().back().second / 5;
    if (i < 5) first += loss;
    if (i >= 20) last += loss;
  }
  EXPECT_LT(last, 0.99 * first);
}

}  // namespace
}  // namespace mtcki::synthesis_test

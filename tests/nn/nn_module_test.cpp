// Module: names, order, modes, hooks, paths, strict loading; layers and their initialisation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/chain.h"
#include "nn/init.h"
#include "nn/module.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::nn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

// stem -> body.{0,1}: a small tree with parameters, buffers and a gap in the numbering.
class Net : public Module {
 public:
  explicit Net(uint64_t seed = 3) {
    Init init(seed);
    stem = &add("stem", std::make_unique<Linear>(4, 8, true, init));
    body = &add("body", std::make_unique<Sequential>());
    bn = &body->add("1", std::make_unique<BatchNorm2d>(8));
    last = &body->add("3", std::make_unique<Linear>(8, 2, false, init));
  }
  Linear* stem;
  Sequential* body;
  BatchNorm2d* bn;
  Linear* last;

 protected:
  Variable forward(const Variable& x) override { return (*body)((*stem)(x)); }
};

Tensor input(int64_t rows = 5) { return rand({rows, 4}, Rng{1, 2, 3}); }

template <class T>
std::vector<std::string> names(const NamedList<T>& list) {
  std::vector<std::string> out;
  for (const auto& entry : list) out.push_back(entry.first);
  return out;
}

TEST(Module, NamesAndOrderArePyTorchs) {
  Net net;
  EXPECT_THAT(
      names(net.named_parameters()),
      ElementsAre("stem.weight", "stem.bias", "body.1.weight", "body.1.bias", "body.3.weight"));
  EXPECT_THAT(
      names(net.state_dict()),
      ElementsAre("stem.weight", "stem.bias", "body.1.weight", "body.1.bias", "body.1.running_mean",
                  "body.1.running_var", "body.1.num_batches_tracked", "body.3.weight"));
  EXPECT_THAT(names(net.named_modules()), ElementsAre("", "stem", "body", "body.1", "body.3"));
  EXPECT_EQ(net.parameter_count(), 4 * 8 + 8 + 16 + 16);
}

TEST(Module, ShortFormsOfWhatEveryNetworkDoes) {
  struct Short : Module {  // no kind(): its class's name
    explicit Short(Init& init) : fc(add<Linear>("fc", 4, 2, false, init)) {}
    Linear& fc;
    Variable forward(const Variable& x) override { return fc(x); }
  };
  Init init(1);
  Short net(init);
  EXPECT_EQ(net.kind(), "Short");
  EXPECT_EQ(net.fc.kind(), "Linear");
  EXPECT_THAT(names(net.named_parameters()), ElementsAre("fc.weight"));
  Sequential chain;
  chain.add<Linear>("0", 4, 2, false, init);
  EXPECT_EQ(chain(Variable(input())).shape(), (Shape{5, 2}));
}

TEST(Module, ParametersAreHandlesAndTheStateDictIsASnapshot) {
  Net net;
  const StateDict before = net.state_dict();
  std::vector<Variable> handles = net.parameters();
  Tensor w = handles[0].data();
  w.fill_(9.0);
  EXPECT_EQ(net.stem->weight.data().to_vector<float>()[0], 9.0f);
  EXPECT_NE(before[0].second.to_vector<float>()[0], 9.0f);
}

TEST(Module, ModesAndGradientsAreSeparateSwitches) {
  Net net;
  net.eval();
  EXPECT_FALSE(net.bn->training());
  EXPECT_TRUE(net.stem->weight.requires_grad());
  net.train();
  EXPECT_TRUE(net.bn->training());
  net.set_requires_grad(false);
  EXPECT_FALSE(net(input()).requires_grad());
  net.set_requires_grad(true);
  sum(net(input())).backward();
  EXPECT_TRUE(net.stem->weight.grad().defined());
  net.zero_grad();
  EXPECT_FALSE(net.stem->weight.grad().defined());
}

TEST(Module, BatchNormMovesItsStatisticsInTrainModeOnly) {
  Net net;
  net(input());
  EXPECT_EQ(net.bn->num_batches_tracked.item(), 1.0);
  const Tensor mean = net.bn->running_mean.clone();
  net.eval();
  net(input(7));
  EXPECT_EQ(net.bn->num_batches_tracked.item(), 1.0);
  EXPECT_TRUE(identical(mean, net.bn->running_mean));
}

TEST(Module, HooksSeeValuesAndPathAndEndWithTheirHandle) {
  Net net;
  std::vector<std::string> seen;
  HookHandle before = net.bn->add_before_hook([&](const Module& m, const Variable& x) {
    seen.push_back(m.name() + " in " + x.shape().to_string() + " at " + context_path());
  });
  {
    const HookHandle after =
        net.last->add_after_hook([&](const Module& m, const Variable& x, const Variable& y) {
          seen.push_back(m.name() + " " + x.shape().to_string() + "->" + y.shape().to_string());
        });
    net(input());
  }
  EXPECT_THAT(seen, ElementsAre("1 in [5, 8] at body.1", "3 [5, 8]->[5, 2]"));
  net(input());
  EXPECT_EQ(seen.size(), 3u);  // the after hook is gone
  before.remove();
  net(input());
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(context_path(), "");
}

TEST(Module, HooksSeeAnInputThatWasGivenAway) {
  Init init(1);
  Sequential net;
  net.add("0", std::make_unique<Linear>(3, 2, true, init));
  const NoGradScope no_grad;
  const Tensor x = Tensor::full({1, 3}, 2.0);
  const auto want = net(Variable(x)).data().to_vector<float>();
  Shape seen;
  const HookHandle hook = net.add_after_hook(
      [&](const Module&, const Variable& in, const Variable&) { seen = in.shape(); });
  Variable given(x);
  EXPECT_EQ(net(std::move(given)).data().to_vector<float>(), want);
  EXPECT_EQ(seen, x.shape());
}

TEST(Module, AHandleMayOutliveItsModuleAndAHookMayRemoveItself) {
  HookHandle handle;
  int runs = 0;
  {
    Net net;
    handle = net.add_before_hook([&](const Module&, const Variable&) {
      ++runs;
      handle.remove();
    });
    net(input());
    net(input());
    EXPECT_EQ(runs, 1);
    handle = net.add_before_hook([](const Module&, const Variable&) {});
  }
  handle.remove();
}

TEST(Module, AStopHookEndsThePass) {
  Net net;
  int runs = 0, ends = 0;
  const HookHandle count =
      net.last->add_before_hook([&](const Module&, const Variable&) { ++runs; });
  const HookHandle after =
      net.add_after_hook([&](const Module&, const Variable&, const Variable&) { ++ends; });
  {
    const HookHandle stop =
        net.bn->add_stop_hook([](const Module&, const Variable& x) { return x.size(0) == 5; });
    EXPECT_FALSE(net(input()).defined());
    EXPECT_EQ(runs + ends, 0);
    EXPECT_TRUE(net(input(7)).defined());
  }
  EXPECT_TRUE(net(input()).defined());
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(ends, 2);
  // Not through a module that is called by hand with what the other left.
  const HookHandle stop =
      net.stem->add_stop_hook([](const Module&, const Variable&) { return true; });
  EXPECT_THAT([&] { net(input()); },
              ThrowsMessage<Error>(HasSubstr("Sequential: the input is undefined; in body")));
}

TEST(Module, ErrorsNameTheModulePath) {
  Net net;
  EXPECT_THAT(
      [&] {
        net(rand({5, 3}, Rng{1, 2, 3}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("stem")));
  EXPECT_EQ(context_path(), "");  // the path is unwound
}

TEST(Module, ANameIsRegisteredOnce) {
  Sequential s;
  Init init(1);
  s.add("0", std::make_unique<Linear>(1, 1, true, init));
  EXPECT_THAT([&] { s.add("0", std::make_unique<Linear>(1, 1, true, init)); },
              ThrowsMessage<Error>(HasSubstr("'0' is registered twice")));
  EXPECT_THROW(s.add("a.b", std::make_unique<Linear>(1, 1, true, init)), Error);
}

TEST(LoadStateDict, CopiesEveryTensorBitForBit) {
  Net a(1), b(2);
  a(input());  // moves the running statistics
  std::vector<std::string> notes;
  b.load_state_dict(a.state_dict(), &notes);
  EXPECT_TRUE(notes.empty());
  const StateDict x = a.state_dict(), y = b.state_dict();
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(identical(x[i].second, y[i].second)) << x[i].first;
}

TEST(LoadStateDict, OneErrorListsEverythingAndChangesNothing) {
  Net a(1), b(2);
  const StateDict before = b.state_dict();
  StateDict state = a.state_dict();
  state[0].first = "stem.weigth";
  state[7].second = Tensor::zeros({10, 8});
  EXPECT_THAT([&] { b.load_state_dict(state); },
              ThrowsMessage<DataError>(
                  AllOf(HasSubstr("1 missing, 1 unexpected, 1 of another shape"),
                        HasSubstr("missing     stem.weight (nearest: stem.weigth)"),
                        HasSubstr("unexpected  stem.weigth (nearest: stem.weight)"),
                        HasSubstr("body.3.weight: file has [10, 8], model has [2, 8]"))));
  const StateDict after = b.state_dict();
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(identical(before[i].second, after[i].second)) << before[i].first;
}

TEST(LoadStateDict, AcceptsWhatTheFieldsFilesHaveWithANote) {
  Net a(1), b(2);
  StateDict state;
  for (auto& [name, t] : a.state_dict()) {
    if (name.find("num_batches_tracked") != std::string::npos) continue;
    const bool inside = name.rfind("body.", 0) == 0;
    const std::string wrapped = inside ? "body.module." + name.substr(5) : "module." + name;
    state.emplace_back(wrapped, t.to(DType::f64));
  }
  std::vector<std::string> notes;
  b.load_state_dict(state, &notes);
  EXPECT_THAT(notes,
              ElementsAre(HasSubstr("'module.' from 7 names"), HasSubstr("type of 7 tensors"),
                          HasSubstr("1 num_batches_tracked were absent")));
  EXPECT_TRUE(identical(a.stem->weight.data(), b.stem->weight.data()));
  EXPECT_TRUE(identical(a.last->weight.data(), b.last->weight.data()));
}

TEST(LoadStateDict, RefusesIntegersForFloatsAndNamesGivenTwice) {
  Net a(1), b(2);
  StateDict state = a.state_dict();
  state[0].second = state[0].second.to(DType::i64);
  EXPECT_THAT([&] { b.load_state_dict(state); },
              ThrowsMessage<DataError>(HasSubstr("stem.weight: file has i64, model has f32")));
  state = a.state_dict();
  state.emplace_back("module.stem.bias", state[1].second);
  EXPECT_THAT([&] { b.load_state_dict(state); },
              ThrowsMessage<DataError>(HasSubstr("twice       module.stem.bias")));
}

struct Moments {
  double mean = 0, std = 0, largest = 0;
};
Moments moments(const Tensor& t) {
  Moments m;
  const std::vector<double> v = t.to_vector<double>();
  for (const double x : v) m.mean += x / static_cast<double>(v.size());
  for (const double x : v) m.std += (x - m.mean) * (x - m.mean) / static_cast<double>(v.size());
  for (const double x : v) m.largest = std::max(m.largest, std::abs(x));
  m.std = std::sqrt(m.std);
  return m;
}

TEST(Init, LayersStartAsInPyTorch) {
  Init init(5);
  const Conv2d conv(64, 32, 3, Conv2dOptions(1, 1), true, init);
  const double bound = 1.0 / std::sqrt(64.0 * 9.0);
  Moments m = moments(conv.weight.data());
  EXPECT_LE(m.largest, bound);
  EXPECT_NEAR(m.std, bound / std::sqrt(3.0), 0.02 * bound);
  EXPECT_NEAR(m.mean, 0.0, 0.02 * bound);
  EXPECT_LE(moments(conv.bias->data()).largest, bound);
  EXPECT_GT(moments(conv.bias->data()).std, 0.3 * bound);

  // Of [in, out, k, k] PyTorch takes out * k * k as the fan.
  const ConvTranspose2d up(64, 16, 4, ConvTranspose2dOptions(2, 1), false, init);
  m = moments(up.weight.data());
  EXPECT_NEAR(m.std, 1.0 / std::sqrt(16.0 * 16.0) / std::sqrt(3.0), 2e-3);

  const Linear linear_layer(100, 50, true, init);
  EXPECT_LE(moments(linear_layer.weight.data()).largest, 0.1);
  EXPECT_NEAR(moments(linear_layer.weight.data()).std, 0.1 / std::sqrt(3.0), 2e-3);
}

TEST(Init, NormalKaimingAndConstants) {
  Variable p(Tensor::empty({64, 32, 3, 3}), true);
  const Rng rng{1, 2, 3};
  normal_(p, 0.5, 0.02, rng);
  EXPECT_NEAR(moments(p.data()).mean, 0.5, 1e-3);
  EXPECT_NEAR(moments(p.data()).std, 0.02, 1e-3);
  kaiming_normal_fan_out_(p, rng);
  EXPECT_NEAR(moments(p.data()).std, std::sqrt(2.0 / (64 * 9)), 1e-3);
  kaiming_normal_fan_in_(p, rng);
  EXPECT_NEAR(moments(p.data()).std, std::sqrt(2.0 / (32 * 9)), 1.5e-3);
  constant_(p, 2.0);
  EXPECT_NEAR(moments(p.data()).std, 0.0, 1e-9);
  Variable vector(Tensor::empty({4}), true);
  EXPECT_THROW(kaiming_normal_fan_in_(vector, rng), ShapeError);
}

TEST(Init, OrthogonalRows) {
  Variable p(Tensor::empty({5, 7}, DType::f64));
  orthogonal_(p, 3.0, Rng{1, 2, 3});
  const auto v = p.data().to_vector<double>();
  for (size_t i = 0; i < 5; ++i)
    for (size_t j = 0; j < 5; ++j) {
      double dot = 0;
      for (size_t k = 0; k < 7; ++k) dot += v[i * 7 + k] * v[j * 7 + k];
      EXPECT_NEAR(dot, i == j ? 9.0 : 0.0, 1e-12) << i << " " << j;
    }
  Variable tall(Tensor::empty({4, 3}));
  EXPECT_THROW(orthogonal_(tall, 1.0, Rng{}), ShapeError);
}

TEST(Init, SameSeedSameWeightsAndNoTwoTensorsAlike) {
  Net a(7), b(7), c(8);
  EXPECT_TRUE(identical(a.stem->weight.data(), b.stem->weight.data()));
  EXPECT_FALSE(identical(a.stem->weight.data(), c.stem->weight.data()));
  Init init(7);
  Linear x(6, 6, false, init), y(6, 6, false, init);
  EXPECT_FALSE(identical(x.weight.data(), y.weight.data()));
}

TEST(Layers, Macs) {
  Init init(1);
  const Conv2d conv(8, 6, 3, Conv2dOptions(2, 1), true, init);
  EXPECT_EQ(conv.macs({1, 8, 8, 8}, {1, 6, 4, 4}), 6.0 * 16 * 8 * 9);
  const ConvTranspose2d up(8, 6, 4, ConvTranspose2dOptions(2, 1), false, init);
  EXPECT_EQ(up.macs({1, 8, 4, 4}, {1, 6, 8, 8}), 8.0 * 16 * 6 * 16);
  const Linear fc(7, 3, true, init);
  EXPECT_EQ(fc.macs({2, 7}, {2, 3}), 42.0);
}

}  // namespace
}  // namespace mtcki::nn

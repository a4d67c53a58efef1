// Optimisers against torch.optim (tests/data/make/optimizer_numbers.py), state dicts, EMA,
// clipping.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "nn/layers.h"
#include "optim/optimizer.h"

namespace mtcki::optim {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Variable three(DType dtype = DType::f64) {
  return Variable(Tensor::from(std::vector<double>{1.0, -2.0, 0.5}, {3}).to(dtype), true);
}

// The gradient of step t in the script: [0.5, -1, (t-1)/4] + 0.1 p.
void set_script_grad(Variable& p, int t) {
  const std::vector<double> base = {0.5, -1.0, 0.25 * (t - 1)};
  std::vector<double> g = p.data().to_vector<double>();
  for (size_t i = 0; i < 3; ++i) g[i] = base[i] + 0.1 * g[i];
  p.set_grad(Tensor::from(g, {3}).to(p.data().dtype()));
}

std::vector<double> four_steps(Variable p, Optimizer& opt) {
  std::vector<double> out;
  for (int t = 0; t < 4; ++t) {
    set_script_grad(p, t);
    opt.step();
    for (const double v : p.data().to_vector<double>()) out.push_back(v);
  }
  return out;
}

ParameterGroup group(const std::string& name, const Variable& p) {
  ParameterGroup g;
  g.parameters.emplace_back(name, p);
  return g;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want,
                 double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

using Make = std::function<std::unique_ptr<Optimizer>(std::vector<ParameterGroup>)>;
Make sgd(SgdOptions o) {
  return [o](std::vector<ParameterGroup> g) { return make_sgd(std::move(g), o); };
}
Make adam(AdamOptions o) {
  return [o](std::vector<ParameterGroup> g) { return make_adam(std::move(g), o); };
}

struct Trajectory {
  std::string name;
  Make make;
  std::vector<double> want;
};
void PrintTo(const Trajectory& t, std::ostream* out) { *out << t.name; }
std::vector<Trajectory> trajectories() {
  return {
      {"sgd",
       sgd({}),
       {0.940000000000, -1.880000000000, 0.520000000000, 0.880600000000, -1.761200000000,
        0.514800000000, 0.821794000000, -1.643588000000, 0.484652000000, 0.763576060000,
        -1.527152120000, 0.429805480000}},
      {"sgd_wd",
       sgd({.weight_decay = 0.05}),
       {0.935000000000, -1.870000000000, 0.517500000000, 0.870975000000, -1.741950000000,
        0.509737500000, 0.807910375000, -1.615820750000, 0.477091437500, 0.745791719375,
        -1.491583438750, 0.419935065937}},
      {"sgd_momentum",
       sgd({.momentum = 0.9, .weight_decay = 0.05}),
       {0.935000000000, -1.870000000000, 0.517500000000, 0.812475000000, -1.624950000000,
        0.525487500000, 0.640015375000, -1.280030750000, 0.499793937500, 0.425201481875,
        -0.850402963750, 0.419172822188}},
      {"sgd_dampening",
       sgd({.momentum = 0.9, .dampening = 0.5}),
       {0.940000000000, -1.880000000000, 0.520000000000, 0.856300000000, -1.712600000000,
        0.535400000000, 0.751688500000, -1.503377000000, 0.534083000000, 0.628779707500,
        -1.257559415000, 0.505227285000}},
      {"sgd_nesterov",
       sgd({.momentum = 0.9, .weight_decay = 0.05, .nesterov = true}),
       {0.876500000000, -1.753000000000, 0.533250000000, 0.703869750000, -1.407739500000,
        0.532227375000, 0.490274987125, -0.980549974250, 0.475837407313, 0.243569105029,
        -0.487138210059, 0.346210139848}},
      {"adam",
       adam({.lr = 0.1}),
       {0.900000001667, -1.900000000833, 0.599999995000, 0.800047340488, -1.800022689123,
        0.642784851460, 0.700174574814, -1.700083391481, 0.607851131510, 0.600414932491,
        -1.600197542222, 0.543658582984}},
      {"adam_wd",
       adam({.lr = 0.1, .beta1 = 0.5, .weight_decay = 0.05}),
       {0.900000001538, -1.900000000769, 0.599999994286, 0.800395312497, -1.800194815704,
        0.598802065367, 0.701422210206, -1.700698285524, 0.512860999016, 0.603276685754,
        -1.601603144454, 0.398676735323}},
      {"adamw",
       adam({.lr = 0.1, .weight_decay = 0.05, .decoupled = true}),
       {0.895000001667, -1.890000000833, 0.597499995000, 0.790574915127, -1.780575065038,
        0.637401227213, 0.686755888484, -1.671739100751, 0.599364682014, 0.583574371857,
        -1.563505949761, 0.532214671520}},
  };
}

class OptimizerNumbers : public testing::TestWithParam<Trajectory> {};

TEST_P(OptimizerNumbers, EqualPyTorch) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    Variable p = three(dtype);
    const auto opt = GetParam().make({group("p", p)});
    expect_near(four_steps(p, *opt), GetParam().want, dtype == DType::f64 ? 1e-11 : 2e-6);
    EXPECT_EQ(opt->steps(), 4);
  }
}

// Two steps, state to a new optimiser, two more: the same bits as four in one go.
TEST_P(OptimizerNumbers, ResumeIsExact) {
  Variable p = three(DType::f32), q = three(DType::f32);
  const auto whole = GetParam().make({group("p", p)});
  const auto first = GetParam().make({group("p", q)});
  const auto second = GetParam().make({group("p", q)});
  for (int t = 0; t < 4; ++t) {
    set_script_grad(p, t);
    whole->step();
    set_script_grad(q, t);
    if (t == 2) second->load_state_dict(first->state_dict());
    (t < 2 ? first : second)->step();
    EXPECT_EQ(p.data().to_vector<float>(), q.data().to_vector<float>()) << t;
  }
  EXPECT_EQ(second->steps(), 4);
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerNumbers, testing::ValuesIn(trajectories()),
                         [](const auto& row) { return row.param.name; });

TEST(Optimizer, DecoupledSgdShrinksTheWeightOutsideTheMomentum) {
  Variable p(Tensor::from(std::vector<double>{2.0}, {1}), true);
  const auto opt = make_sgd({group("p", p)},
                            {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.5, .decoupled = true});
  p.set_grad(Tensor::zeros({1}, DType::f64));
  opt->step();
  opt->step();
  EXPECT_NEAR(p.data().item(), 2.0 * 0.95 * 0.95, 1e-12);
}

TEST(Optimizer, ScalesOfGroupsAndOfGradients) {
  Variable a(Tensor::from(std::vector<double>{1.0}, {1}), true);
  Variable b(Tensor::from(std::vector<double>{1.0}, {1}), true);
  ParameterGroup ga = group("a", a), gb = group("b", b);
  gb.lr_scale = 10.0;
  gb.weight_decay_scale = 0.0;
  const auto opt = make_sgd({ga, gb}, {.lr = 0.01, .weight_decay = 1.0});
  a.set_grad(Tensor::full({1}, 2.0, DType::f64));
  b.set_grad(Tensor::full({1}, 2.0, DType::f64));
  opt->step(0.5);
  EXPECT_NEAR(a.data().item(), 1.0 - 0.01 * (1.0 + 1.0), 1e-12);
  EXPECT_NEAR(b.data().item(), 1.0 - 0.1 * 1.0, 1e-12);
}

TEST(Optimizer, ParametersWithoutAGradientAreSkippedAndKeepTheirOwnStep) {
  Variable a = three(), b = three();
  AdamOptions o;
  o.lr = 0.1;
  const auto opt = make_adam({[&] {
                               ParameterGroup g = group("a", a);
                               g.parameters.emplace_back("b", b);
                               return g;
                             }()},
                             o);
  set_script_grad(a, 0);
  opt->step();
  EXPECT_EQ(b.data().to_vector<double>(), three().data().to_vector<double>());
  // b's first update is bias-corrected as a first step: |change| = lr.
  a.zero_grad();
  set_script_grad(b, 0);
  opt->step();
  EXPECT_NEAR(b.data().to_vector<double>()[0], 0.9, 1e-7);

  bool has_step = false;
  for (const auto& [name, t] : opt->state_dict()) has_step |= name == "b.step" && t.item() == 1.0;
  EXPECT_TRUE(has_step);
}

TEST(Optimizer, StateOfOtherParametersIsRefused) {
  Variable a = three(), b = three();
  const auto opt = make_sgd({group("a", a)}, {.momentum = 0.9});
  const auto other = make_sgd({group("b", b)}, {.momentum = 0.9});
  EXPECT_THAT([&] { opt->load_state_dict(other->state_dict()); },
              ThrowsMessage<DataError>(testing::AllOf(HasSubstr("missing     a.momentum"),
                                                      HasSubstr("unexpected  b.momentum"))));
  EXPECT_THAT(
      [&] {
        make_sgd({group("a", a), group("a", b)}, {});
      },
      ThrowsMessage<Error>(HasSubstr("two parameters are called 'a'")));
  EXPECT_THAT(
      [&] {
        make_sgd({group("a", a), group("b", a)}, {});
      },
      ThrowsMessage<Error>(HasSubstr("'b' is listed twice, also as 'a'")));
}

TEST(Optimizer, RefusesOptionsThatCannotBe) {
  Variable a = three();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(make_sgd({group("a", a)}, {.lr = nan}), UsageError);
  EXPECT_THROW(make_sgd({group("a", a)}, {.lr = -1}), UsageError);
  EXPECT_THROW(make_adam({group("a", a)}, {.beta2 = 1}), UsageError);
}

TEST(Optimizer, NesterovNeedsMomentum) {
  Variable a = three();
  EXPECT_THROW(make_sgd({group("a", a)}, {.nesterov = true}), UsageError);
}

TEST(Optimizer, NormAndClipping) {
  Variable p(Tensor::from(std::vector<double>{0.0, 0.0}, {2}), true);
  p.set_grad(Tensor::from(std::vector<double>{3.0, 4.0}, {2}));
  const auto opt = make_sgd({group("p", p)}, {.lr = 1.0});
  EXPECT_NEAR(opt->grad_norm(), 5.0, 1e-12);
  // torch.nn.utils.clip_grad_norm_([p], 2.0) leaves [1.199999760000048, 1.599999680000064].
  opt->step(Optimizer::clip_scale(opt->grad_norm(), 2.0));
  expect_near(p.data().to_vector<double>(), {-1.199999760000048, -1.599999680000064}, 1e-12);
  EXPECT_EQ(Optimizer::clip_scale(5.0, 10.0), 1.0);
  EXPECT_TRUE(std::isnan(Optimizer::clip_scale(std::nan(""), 10.0))) << "as in PyTorch";
  opt->zero_grad();
  EXPECT_FALSE(p.grad().defined());
  EXPECT_EQ(opt->grad_norm(), 0.0);
}

TEST(ModuleEma, AveragesParametersAndCopiesBuffers) {
  nn::BatchNorm2d bn(2, 1e-5, 0.1, DType::f64), target(2, 1e-5, 0.1, DType::f64);
  ModuleEma ema(bn, 0.9);
  Tensor weight = bn.weight.data();
  weight.fill_(3.0);
  bn.running_mean.fill_(7.0);
  bn.num_batches_tracked.fill_(5);
  ema.update();
  ema.copy_to(target);
  expect_near(target.weight.data().to_vector<double>(), {1.2, 1.2}, 1e-12);
  expect_near(target.running_mean.to_vector<double>(), {7.0, 7.0}, 0.0);
  EXPECT_EQ(target.num_batches_tracked.item(), 5.0);
  // The source is not touched, and a restored average goes on from the same values.
  expect_near(bn.weight.data().to_vector<double>(), {3.0, 3.0}, 0.0);
  ModuleEma restored(bn, 0.9);
  restored.load_state_dict(ema.state_dict());
  restored.update();
  restored.copy_to(target);
  expect_near(target.weight.data().to_vector<double>(), {1.38, 1.38}, 1e-12);
  EXPECT_EQ(ema.state_dict().front().first, "ema.weight");
  EXPECT_THROW(restored.load_state_dict({}), DataError);
}

TEST(Optimizer, TakesANetworkOrItsParameters) {
  nn::Init init(1);
  nn::Linear net(3, 2, true, init);
  EXPECT_EQ(make_sgd(net, {.momentum = 0.9})->state_dict()[1].first, "weight.momentum");
  const auto adam = make_adam(net.parameters(), {.lr = 0.5});
  EXPECT_EQ(adam->state_dict()[1].first, "0.exp_avg");
  const double before = net.bias->data().to_vector<float>()[0];
  net.bias->set_grad(Tensor::full({2}, 3.0));
  adam->step();
  EXPECT_NEAR(net.bias->data().to_vector<float>()[0], before - 0.5, 1e-6);
}

}  // namespace
}  // namespace mtcki::optim

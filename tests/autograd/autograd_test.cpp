// The graph and its engine: accumulation, order, errors, release. The gradients of the single ops
// are checked by the op table (op_table_test.cpp), memory and work by autograd_test_cost.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "autograd/recorder.h"
#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

Variable leaf(const std::vector<double>& values, const Shape& shape) {
  return Variable(Tensor::from(values, shape), true);
}
Variable leaf(double value) { return leaf({value}, {}); }
std::vector<double> grad(const Variable& v) { return v.grad().to_vector<double>(); }

// y = x with a closure of the test's choice.
Variable custom(const char* op, const Variable& x, GradFn fn) {
  Recorder r(op, {x});
  if (r.needs(0)) r.grad(0, std::move(fn));
  return r.finish(mul(x.data(), 1.0));
}

TEST(Autograd, SharedInputGathersEveryUse) {
  const Variable x = leaf({1, 2, 3}, {3});
  sum(x * x + x).backward();
  EXPECT_THAT(grad(x), ElementsAre(3, 5, 7));
}

TEST(Autograd, BroadcastOperandsGetSums) {
  const Variable a = leaf({1, 2, 3, 4, 5, 6}, {2, 3}), row = leaf({10, 20, 30}, {3}),
                 column = leaf({1, 2}, {2, 1}), s = leaf(2);
  sum((a + row) * column / s - s).backward();
  EXPECT_THAT(grad(a), ElementsAre(0.5, 0.5, 0.5, 1, 1, 1));
  EXPECT_THAT(grad(row), ElementsAre(1.5, 1.5, 1.5));
  EXPECT_THAT(grad(column), ElementsAre(33, 37.5));
  EXPECT_DOUBLE_EQ(s.grad().item(), -(66 + 2 * 75) / 4.0 - 6);
  EXPECT_EQ(column.grad().shape(), (Shape{2, 1}));
}

TEST(Autograd, EveryNodeRunsOnceAfterAllItsUses) {
  const Variable x = leaf(3);
  std::vector<double> seen;
  const Variable h = custom("h", x, [&](const Tensor& gy) {
    seen.push_back(gy.item());
    return gy;
  });
  Variable deep = h;  // the direct use of h is recorded last, the deep one first
  for (int i = 0; i < 5; ++i) deep = deep * 2.0;
  (deep + h * h).backward();
  EXPECT_THAT(seen, ElementsAre(32 + 6));
  EXPECT_DOUBLE_EQ(x.grad().item(), 38);
}

TEST(Autograd, GradientsAddUpOverCalls) {
  const Variable x = leaf({1, 2}, {2});
  sum(square(x)).backward();
  const Tensor first = x.grad();
  sum(square(x)).backward();
  EXPECT_THAT(grad(x), ElementsAre(4, 8));
  EXPECT_THAT(first.to_vector<double>(), ElementsAre(2, 4)) << "a handle somebody kept was written";
  Variable(x).zero_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, GradientsOfTwoLeavesShareNoBytes) {
  const Variable a = leaf({1, 2}, {2}), b = leaf({3, 4}, {2});
  const Tensor seed = Tensor::from<double>({5, 6}, {2});
  (a + b).backward(seed);
  EXPECT_FALSE(a.grad().shares_memory(b.grad()));
  EXPECT_FALSE(a.grad().shares_memory(seed));
  mul_(a.grad(), 0.0);  // what clipping does
  EXPECT_THAT(grad(b), ElementsAre(5, 6));
}

TEST(Autograd, SharedPendingGradientsAreNotWritten) {
  const Variable x = leaf({1, 2}, {2});
  const Variable h = x * 1.0;
  const Variable twice = h + h;  // both closures hand on the same tensor, the seed
  twice.backward(Tensor::from<double>({1, 10}, {2}), true);
  EXPECT_THAT(grad(x), ElementsAre(2, 20));
  const Tensor seed = Tensor::from<double>({1, 10}, {2});
  Variable kept = h;
  kept.retain_grad();
  twice.backward(seed);
  EXPECT_THAT(seed.to_vector<double>(), ElementsAre(1, 10));
  EXPECT_THAT(grad(kept), ElementsAre(2, 20));
  EXPECT_THAT(grad(x), ElementsAre(4, 40));
}

TEST(Autograd, LeafGradientHasTheLeafsLayout) {
  const int64_t c = kChannelBlock;
  const Variable x(Tensor::full({1, c, 2, 2}, 1.0), true);
  const Variable w(Tensor::full({c, c, 1, 1}, 1.0), false);
  const Variable y = conv2d(x, w, {});
  ASSERT_EQ(y.data().layout(), Layout::blocked);
  sum(y).backward();
  EXPECT_EQ(x.grad().layout(), Layout::plain);
  EXPECT_FLOAT_EQ(x.grad().to_vector<float>()[3], static_cast<float>(c));
}

TEST(Autograd, RetainGradKeepsInnerGradients) {
  const Variable x = leaf(2);
  Variable h = square(x);
  h.retain_grad();
  (h * 3.0).backward();
  EXPECT_DOUBLE_EQ(h.grad().item(), 3);
  EXPECT_DOUBLE_EQ(x.grad().item(), 12);
  Variable constant(Tensor::scalar(1, DType::f64));
  EXPECT_THROW(constant.retain_grad(), GradientError);
}

TEST(Autograd, DetachAndNoGradCutTheGraph) {
  const Variable x = leaf(2);
  (x * square(x).detach()).backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 4);
  const LeakCheckScope leaks;
  {
    const NoGradScope outer;
    { const NoGradScope inner; }
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE(square(x).requires_grad());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_EQ(leaks.alive(), 0);
}

TEST(Autograd, BackwardOfALeafAndOfConstants) {
  const Variable x = leaf(2);
  x.backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 1);
  square(x);  // a leaf that an op has used
  x.backward(Tensor::scalar(3, DType::f64));
  EXPECT_DOUBLE_EQ(x.grad().item(), 4);
  const Variable constant(Tensor::scalar(1, DType::f64));
  EXPECT_THAT([&] { square(constant).backward(); },
              ThrowsMessage<GradientError>(
                  AllOf(HasSubstr("requires no gradient"), HasSubstr("NoGradScope"))));
  EXPECT_THROW(Variable().backward(), GradientError);
}

TEST(Autograd, SeedIsChecked) {
  const Variable x = leaf({1, 2}, {2});
  const Variable y = x * 2.0;
  EXPECT_THAT([&] { y.backward(); },
              ThrowsMessage<GradientError>(
                  AllOf(HasSubstr("[2] f64"), HasSubstr("several"), HasSubstr("sum() or mean()"))));
  EXPECT_THAT([&] { y.backward(Tensor::zeros({3}, DType::f64)); },
              ThrowsMessage<GradientError>(AllOf(HasSubstr("[3] f64"), HasSubstr("[2] f64"))));
  EXPECT_THROW(y.backward(Tensor::zeros({2}, DType::f32)), GradientError);
  y.backward(Tensor::from<double>({1, 2}, {2}));  // the failed calls released nothing
  EXPECT_THAT(grad(x), ElementsAre(2, 4));
}

TEST(Autograd, SecondBackwardNeedsKeepGraph) {
  const Variable x = leaf(3);
  const Variable y = square(x);
  y.backward({}, true);
  y.backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 12);
  EXPECT_THAT([&] { y.backward(); },
              ThrowsMessage<GradientError>(
                  AllOf(StartsWith("backward of square: "), HasSubstr("keep_graph = true"))));
  // Also where only a part is shared with a graph that was released.
  const Variable h = exp(x);
  h.backward();
  const Variable z = h * 2.0;
  EXPECT_THAT([&] { z.backward(); }, ThrowsMessage<GradientError>(StartsWith("backward of exp: ")));
}

TEST(Autograd, WritingASavedTensorIsFoundAndNamed) {
  const Variable x = leaf({1, 2}, {2});
  const Variable y = sum(square(x));
  x.data().bump_version();
  EXPECT_THAT([&] { y.backward(); },
              ThrowsMessage<GradientError>(
                  AllOf(StartsWith("backward of square: "), HasSubstr("[2] f64 cpu"),
                        HasSubstr("written in place"), HasSubstr("version 0 when saved, 1 now"))));
  const Variable a = leaf({1, 2}, {2});
  const Variable b = a + a;  // saves nothing: a write is harmless
  a.data().fill_(7.0);
  sum(b).backward();
  EXPECT_THAT(grad(a), ElementsAre(2, 2));
  // The real case: weights stepped between forward and backward.
  const Variable w = leaf({1, 2}, {1, 2});
  const Variable in = leaf({1, 1}, {1, 2});
  const Variable out = sum(linear(in, w, {}));
  add_(w.data(), Tensor::full({1, 2}, 1.0, DType::f64));
  EXPECT_THAT([&] { out.backward(); },
              ThrowsMessage<GradientError>(StartsWith("backward of linear: ")));
}

TEST(Autograd, AWrongClosureIsNamedWithItsModule) {
  const Variable x = leaf({1, 2}, {2});
  const ContextScope scope(ContextScope::Kind::module, "layer2");
  const Variable shape =
      custom("bad_shape", x, [](const Tensor&) { return Tensor::zeros({3}, DType::f64); });
  EXPECT_THAT(
      [&] { sum(shape).backward(); },
      ThrowsMessage<GradientError>(AllOf(HasSubstr("bad_shape in layer2"), HasSubstr("input 0"),
                                         HasSubstr("[3] f64"), HasSubstr("[2] f64"))));
  const Variable dtype = custom("bad_dtype", x, [](const Tensor&) { return Tensor::zeros({2}); });
  EXPECT_THAT([&] { sum(dtype).backward(); },
              ThrowsMessage<GradientError>(AllOf(HasSubstr("bad_dtype"), HasSubstr("[2] f32"))));
  Recorder r("bad_count", {x});
  r.grad({0}, [](const Tensor&) { return std::vector<Tensor>{}; });
  const Variable count = r.finish(x.data().clone());
  EXPECT_THAT([&] { sum(count).backward(); },
              ThrowsMessage<GradientError>(HasSubstr("0 gradients for 1 inputs")));
}

TEST(Autograd, AnErrorLeavesNoGradientBehind) {
  const Variable x = leaf(2), other = leaf(5);
  bool fail = true;
  const Variable early = square(other);  // waits in the queue while `picky` throws
  const Variable picky = custom("picky", square(x), [&](const Tensor& gy) {
    if (fail) throw NumericError("once");
    return gy;
  });
  const Variable y = picky + early;
  EXPECT_THROW(y.backward({}, true), NumericError);
  EXPECT_TRUE(grad_enabled());
  fail = false;
  y.backward();
  EXPECT_DOUBLE_EQ(x.grad().item(), 4);
  EXPECT_DOUBLE_EQ(other.grad().item(), 10);
}

TEST(Autograd, AMillionNodesNeedNoStack) {
  constexpr int kNodes = 1000000;
  const Variable x = leaf(1);
  const LeakCheckScope leaks;
  {
    Variable y = x;
    for (int i = 0; i < kNodes; ++i) y = custom("link", y, [](const Tensor& gy) { return gy; });
    EXPECT_EQ(leaks.alive(), kNodes);
    y.backward();
    EXPECT_DOUBLE_EQ(x.grad().item(), 1);
    EXPECT_EQ(leaks.alive(), 1) << "the graph outlives its backward";
    // A graph that no backward releases: its nodes are dropped without recursion too.
    y = x;
    for (int i = 0; i < kNodes; ++i) y = custom("link", y, [](const Tensor& gy) { return gy; });
  }
  EXPECT_EQ(leaks.alive(), 0);
}

TEST(Autograd, AStepLeaksNoNodes) {
  const Variable w = leaf({0.1, 0.2, 0.3, 0.4}, {2, 2}), b = leaf({0, 0}, {2});
  const Variable x(Tensor::from<double>({1, 2, 3, 4}, {2, 2}));
  const Tensor labels = Tensor::from<int64_t>({0, 1}, {2});
  const LeakCheckScope leaks;
  for (int step = 0; step < 3; ++step) {
    const Variable loss = cross_entropy(relu(linear(x, w, b)), labels);
    EXPECT_EQ(leaks.alive(), 3);
    if (step < 2) loss.backward(step == 0 ? Tensor() : Tensor::scalar(1, DType::f64), step == 0);
  }
  EXPECT_EQ(leaks.alive(), 0);
}

TEST(Variable, LeavesAndTheirRules) {
  Variable x = leaf({1, 2}, {2});
  const Variable y = x * 2.0;
  EXPECT_TRUE(x.is_leaf());
  EXPECT_FALSE(y.is_leaf());
  EXPECT_THAT([&] { Variable(y).set_data(x.data()); },
              ThrowsMessage<GradientError>(AllOf(HasSubstr("set_data"), HasSubstr("mul"))));
  EXPECT_THAT([&] { Variable(y).set_requires_grad(false); },
              ThrowsMessage<GradientError>(HasSubstr("detach()")));
  EXPECT_THROW(Variable(Tensor::from<int64_t>({1}, {1}), true), GradientError);
  EXPECT_THROW(Variable(Tensor(), true), GradientError);
  EXPECT_FALSE(Variable(Tensor()).defined());
  EXPECT_THROW(x.set_grad(Tensor::zeros({3}, DType::f64)), GradientError);
  x.set_requires_grad(false);
  EXPECT_FALSE(square(x).requires_grad());
}

TEST(Variable, OnlyFloatingTensorsCanRequireAGradient) {
  Variable labels(Tensor::from(std::vector<int64_t>{1, 2}, {2}));
  EXPECT_THROW(labels.set_requires_grad(true), GradientError);
}

TEST(Variable, ALeafThatIsFrozenAfterTheForwardGetsNoGradient) {
  Variable x(Tensor::full({2}, 1.0, DType::f64), true);
  const Variable y = sum(mul(x, x));
  x.set_requires_grad(false);
  y.backward();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Variable, SetDataMayChangeTheShape) {
  Variable x = leaf({1, 2}, {2});
  sum(square(x)).backward();
  x.set_data(Tensor::from<double>({1, 2, 3}, {3}));
  EXPECT_FALSE(x.grad().defined());
  sum(square(x)).backward();
  EXPECT_THAT(grad(x), ElementsAre(2, 4, 6));
}

TEST(Gradcheck, FindsAWrongGradient) {
  const auto wrong = [](const std::vector<Variable>& in) {
    return custom("wrong", in[0], [](const Tensor& gy) { return mul(gy, 1.00001); });
  };
  const Variable x = leaf({1, 2}, {2});
  const GradcheckReport report = gradcheck(wrong, {x});
  EXPECT_FALSE(report.ok);
  EXPECT_NEAR(report.worst, 1e-5, 1e-7);
  EXPECT_THAT(report.message, AllOf(HasSubstr("input 0"), HasSubstr("element 0")));
  EXPECT_FALSE(x.grad().defined()) << "it works on copies";
  const auto nan = [](const std::vector<Variable>& in) {
    return custom("nan", in[0], [](const Tensor& gy) { return mul(gy, std::nan("")); });
  };
  EXPECT_FALSE(gradcheck(nan, {x}).ok);
  const auto none = [](const std::vector<Variable>& in) {  // forgets a gradient
    return custom("none", in[0], [](const Tensor& gy) { return Tensor::zeros_like(gy); });
  };
  EXPECT_FALSE(gradcheck(none, {x}).ok);
}

TEST(Variable, OperatorsAndMembersThatOneReachesFor) {
  const auto values = [](const Variable& v) { return v.data().to_vector<double>(); };
  const Variable x = leaf({1, 2, 4, 8}, {2, 2});
  EXPECT_THAT(values(x + 1), ElementsAre(2, 3, 5, 9));
  EXPECT_THAT(values(1 + x), ElementsAre(2, 3, 5, 9));
  EXPECT_THAT(values(x - 1), ElementsAre(0, 1, 3, 7));
  EXPECT_THAT(values(10 - x), ElementsAre(9, 8, 6, 2));
  EXPECT_THAT(values(x / 2), ElementsAre(0.5, 1, 2, 4));
  EXPECT_THAT(values(x.sum({1})), ElementsAre(3, 12));
  EXPECT_EQ(x.mean({0}, true).shape(), (Shape{1, 2}));
  ((10 - x) / 2 + 3).mean().backward();
  EXPECT_THAT(grad(x), ElementsAre(-0.125, -0.125, -0.125, -0.125));
}

TEST(Gradcheck, ReportsTheErrorOfARightGradientToo) {
  const Variable x = leaf({0.5, -1.5}, {2});
  const auto f = [](const std::vector<Variable>& in) { return tanh(in[0]); };
  const GradcheckReport report = gradcheck(f, {x});
  EXPECT_TRUE(report.ok);
  EXPECT_GT(report.worst, 0) << "differences of f64 are not exact";
  EXPECT_LT(report.worst, 1e-8);
  const auto nan = [](const std::vector<Variable>& in) {
    return custom("nan", in[0], [](const Tensor& gy) { return mul(gy, std::nan("")); });
  };
  EXPECT_TRUE(std::isnan(gradcheck(nan, {x}).worst));
}

TEST(Gradcheck, AcceptsARightOneAndChecksItsArguments) {
  const auto f = [](const std::vector<Variable>& in) { return sum(in[0] * in[1], {1}); };
  const Variable a = leaf({1, 2, 3, 4}, {2, 2});
  const GradcheckReport report = gradcheck(f, {a, Variable(a.data())});
  EXPECT_TRUE(report.ok) << report.message;
  EXPECT_LT(report.worst, 1e-8);
  EXPECT_THROW(gradcheck(f, {a, Variable(Tensor::zeros({2, 2}), true)}), DTypeError);
  EXPECT_THROW(gradcheck(f, {Variable(a.data()), Variable(a.data())}), GradientError);
}

}  // namespace
}  // namespace mtcki

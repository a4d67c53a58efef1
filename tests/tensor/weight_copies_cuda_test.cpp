// Weights on the GPU: their order in memory, and the copies of them that kernels read, which the
// optimiser's updates write along, so that a training step converts nothing.
#include <functional>
#include <optional>

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/update.h"
#include "tensor/ops/weight_copies.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;

class WeightCopiesCuda : public CudaTest {};

Tensor on_gpu(const Shape& shape, uint64_t seed, DType dtype = DType::f32) {
  const Tensor t = sample(shape, seed, dtype).to(kGpu);
  return shape.rank() == 4 ? t.to(Layout::channels_last) : t;
}

// What a kernel reads of a weight, in one form.
struct Form {
  const char* name;
  Shape shape;
  DType dtype;
  int64_t padded;  // 0: cast_weight
  Tensor of(const Tensor& w) const {
    const Tensor t =
        padded > 0 ? ohwi_weight(w, dtype, padded, false) : cast_weight(w, dtype, false);
    return t.in_memory_order();
  }
};
const std::vector<Form>& forms() {
  static const std::vector<Form> all{
      {"linear", {5, 7}, DType::bf16, 0},          {"3x3", {6, 4, 3, 3}, DType::bf16, 4},
      {"1x1", {6, 4, 1, 1}, DType::bf16, 4},       {"image", {6, 3, 3, 3}, DType::bf16, 8},
      {"tf32 image", {6, 3, 3, 3}, DType::f32, 4}, {"large", {70, 64, 3, 3}, DType::bf16, 64}};
  return all;
}

// Updates of SGD and Adam in turn, with gradients in both dtypes.
class Updates {
 public:
  explicit Updates(const Tensor& w)
      : w_(w), m_(Tensor::zeros_like(w)), v_(Tensor::zeros_like(w)), b_(Tensor::zeros_like(w)) {}
  void run(int i) {
    const DType dtype = i % 2 ? DType::bf16 : DType::f32;
    const Tensor g =
        sample(w_.shape(), 50 + static_cast<uint64_t>(i), dtype).to(kGpu).to(w_.layout());
    SgdUpdate sgd;
    sgd.momentum = 0.9;
    sgd.step = i + 1;
    sgd_update_({w_}, {g}, {b_}, sgd);
    AdamUpdate adam;
    adam.step = i + 1;
    adam_update_({w_}, {g}, {m_}, {v_}, adam);
  }

 private:
  Tensor w_, m_, v_, b_;
};

TEST_F(WeightCopiesCuda, UpdatesWriteThem) {
  for (const Form& form : forms()) {
    SCOPED_TRACE(form.name);
    const Tensor w = on_gpu(form.shape, 1);
    Updates updates(w);
    form.of(w);
    for (int i = 0; i < 3; ++i) {
      const uint64_t before = weight_conversions();
      updates.run(i);
      const Tensor kept = form.of(w);
      EXPECT_EQ(weight_conversions(), before);
      EXPECT_TRUE(identical(kept, form.of(w.clone())));
      mul_(w, 0.5);  // by other means: made again
      EXPECT_TRUE(identical(form.of(w), form.of(w.clone())));
    }
  }
}

TEST_F(WeightCopiesCuda, APlainWeightIsConvertedAfterEachUpdate) {
  const Tensor w = sample({6, 4, 3, 3}, 1, DType::f32).to(kGpu);
  const auto copy = [](const Tensor& t) {
    return ohwi_weight(t, DType::bf16, 4, false).in_memory_order();
  };
  Updates updates(w);
  for (int i = 0; i < 3; ++i) {
    updates.run(i);
    const uint64_t before = weight_conversions();
    const Tensor made = copy(w);
    EXPECT_EQ(weight_conversions(), before + 1);
    EXPECT_TRUE(identical(made, copy(w.to(Layout::channels_last))));
  }
}

TEST_F(WeightCopiesCuda, AWeightInTheOrderOfTheKernelsNeedsNone) {
  const Tensor w = sample({6, 4, 3, 3}, 1, DType::f32), x = sample({2, 4, 5, 5}, 2, DType::f32);
  const Tensor gx = x.to(kGpu), last = w.to(kGpu).to(Layout::channels_last);
  const Conv2dOptions o(1, 1);
  const size_t before = weight_copies();
  const Tensor y = conv2d(gx, last, {}, o), g = conv2d_grad_input(y, last, x.shape(), o);
  EXPECT_EQ(weight_copies(), before);
  EXPECT_TRUE(identical(y, conv2d(gx, w.to(kGpu), {}, o)));
  EXPECT_TRUE(identical(g, conv2d_grad_input(y, w.to(kGpu), x.shape(), o)));
  EXPECT_EQ(conv2d_grad_weight(y, gx, w.shape(), o).layout(), Layout::channels_last);
  // Not on the CPU, where kernels want it plain whatever it comes in.
  EXPECT_TRUE(identical(conv2d(x, w.to(Layout::channels_last), {}, o), conv2d(x, w, {}, o)));
}

TEST_F(WeightCopiesCuda, MemoryOrder) {
  const Tensor w = sample({2, 3, 2, 2}, 1, DType::f32).to(Layout::channels_last);
  const Tensor flat = w.in_memory_order();
  EXPECT_TRUE(flat.shares_memory(w));
  EXPECT_EQ(flat.shape(), (Shape{24}));
  EXPECT_EQ(flat.to_vector<float>()[1], w.to_vector<float>()[4]);
  EXPECT_TRUE(identical(flat.ordered_as(w), w));
  EXPECT_EQ(flat.ordered_as(w).layout(), Layout::channels_last);
  EXPECT_THROW(flat.slice(0, 3).ordered_as(w), ShapeError);
}

// A captured and an eager optimiser loop over one weight, beside what changes the weight otherwise.
struct Loop {
  explicit Loop(bool capture) : graph(capture), other(capture) {}
  void forward() { y.copy_(conv2d(x, w, {}, Conv2dOptions(1, 1))); }
  void step(bool shrink = false) {
    graph.run(shrink ? "shrink" : "step", [&] {
      forward();
      add_(sum, y);
      SgdUpdate u;
      u.lr = 0.5;
      sgd_update_({w}, {g}, {}, u);
      if (shrink) mul_(w, 0.75);
    });
  }
  void halve() {
    other.run("halve", [&] { mul_(w, 0.5); });
  }
  StepGraph graph, other;
  Tensor x = on_gpu({2, 8, 4, 4}, 1, DType::bf16), w = on_gpu({8, 8, 3, 3}, 2),
         g = on_gpu({8, 8, 3, 3}, 3, DType::bf16);
  Tensor y = Tensor::zeros({2, 8, 4, 4}, DType::bf16, kGpu, Layout::channels_last),
         sum = Tensor::zeros_like(y);
};

void expect_same(const Loop& a, const Loop& b, const char* after) {
  EXPECT_TRUE(identical(a.w, b.w)) << after;
  EXPECT_TRUE(identical(a.y, b.y)) << after;
  EXPECT_TRUE(identical(a.sum, b.sum)) << after;
}

TEST_F(WeightCopiesCuda, CapturedStepsSeeWhatChangedOutside) {
  Loop eager(false), captured(true);
  const auto both = [&](const char* what, const std::function<void(Loop&)>& f) {
    f(eager);
    f(captured);
    expect_same(eager, captured, what);
  };
  const auto steps = [&] {
    for (int i = 0; i < StepGraph::kWarmup + 2; ++i) both("step", [](Loop& l) { l.step(); });
  };
  steps();
  EXPECT_EQ(captured.graph.captured(), 1);
  const uint64_t before = weight_conversions();
  steps();
  both("forward", [](Loop& l) { l.forward(); });
  steps();
  EXPECT_EQ(weight_conversions(), before) << "the copy is written with the weight";
  both("load", [](Loop& l) { l.w.copy_(sample({8, 8, 3, 3}, 9, DType::f32)); });
  steps();
  EXPECT_EQ(weight_conversions(), before + 2) << "once in each loop";
  both("load", [](Loop& l) { l.w.copy_(sample({8, 8, 3, 3}, 10, DType::f32)); });
  both("forward", [](Loop& l) { l.forward(); });
  steps();
}

TEST_F(WeightCopiesCuda, CapturedWritesOfOtherKinds) {
  Loop eager(false), captured(true);
  for (int i = 0; i < 24; ++i) {
    for (Loop* l : {&eager, &captured}) {
      i % 4 == 1 ? l->halve() : l->step(i % 3 == 0);
      if (i % 5 == 0) l->forward();
      if (i == 17) mul_(l->w, 3.0);
    }
    SCOPED_TRACE(i);
    expect_same(eager, captured, "step");
  }
  EXPECT_EQ(captured.graph.captured(), 2);
  EXPECT_EQ(captured.other.captured(), 1);
}

// Nothing runs before a graph when it is launched by hand: its conversions are in it.
TEST_F(WeightCopiesCuda, GraphsWithoutAStepGraph) {
  Loop eager(false), captured(false);
  for (Loop* l : {&eager, &captured})
    for (int i = 0; i < 2; ++i) l->step();
  cuda::Graph graph;
  graph.begin();
  captured.step();
  graph.end();
  for (int i = 0; i < 3; ++i) {
    eager.step();
    graph.launch();
    expect_same(eager, captured, "step");
    for (Loop* l : {&eager, &captured}) mul_(l->w, 2.0);
  }
}

// ---- networks ----

struct Training {
  Training(bool capture, const std::string& method, Device device = kGpu,
           nn::Precision precision = nn::Precision::bf16)
      : graph(capture) {
    nn::Init init(1);
    net = nn::make_classifier({"vgg8_w0.125", 1, 16, 10}, init);
    net->to(device);
    net->set_precision(precision);
    if (method == "sgd") {
      optim::SgdOptions o;
      o.lr = 0.05;
      o.momentum = 0.9;
      o.weight_decay = 1e-3;
      optimizer = optim::make_sgd({optim::group_of(*net)}, o);
    } else {
      optim::AdamOptions o;
      o.lr = 0.01;
      optimizer = optim::make_adam({optim::group_of(*net)}, o);
    }
    ema.emplace(*net, 0.5);
    x = sample({2, 1, 16, 16}, 4, DType::f32).to(device);
    y = randint(0, 10, {2}, Rng{1, 2, 3}).to(device);
  }
  void step() {
    graph.run("step", [&] {
      optimizer->zero_grad();
      cross_entropy((*net)(x), y).backward();
      optimizer->step(optimizer->clip_scale(1.0));
      ema->update();
    });
  }
  Tensor evaluate() {
    const NoGradScope no_grad;
    net->eval();
    const Tensor logits = (*net)(x).data();
    net->train();
    return logits;
  }
  StepGraph graph;
  std::unique_ptr<nn::Classifier> net;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::optional<optim::ModuleEma> ema;
  Tensor x, y;
};

void expect_same(const nn::StateDict& a, const nn::StateDict& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(identical(a[i].second, b[i].second)) << a[i].first;
    for (const Tensor& t : {a[i].second, b[i].second}) {
      EXPECT_TRUE(t.is_plain()) << a[i].first;
      EXPECT_TRUE(t.device().is_cpu()) << a[i].first;
    }
  }
}
void expect_same(Training& a, Training& b) {
  expect_same(a.net->state_dict(), b.net->state_dict());
  expect_same(a.optimizer->state_dict(), b.optimizer->state_dict());
  expect_same(a.ema->state_dict(), b.ema->state_dict());
}

// Clipping, an average of the weights, evaluations between the steps.
TEST_F(WeightCopiesCuda, TrainingStepsConvertNothing) {
  for (const char* optimizer : {"sgd", "adam"}) {
    SCOPED_TRACE(optimizer);
    Training eager(false, optimizer), captured(true, optimizer);
    const auto step = [&] {
      for (Training* t : {&eager, &captured}) t->step();
    };
    step();
    const uint64_t before = weight_conversions();
    for (int i = 0; i <= StepGraph::kWarmup; ++i) step();
    EXPECT_TRUE(identical(eager.evaluate(), captured.evaluate()));
    step();
    EXPECT_EQ(weight_conversions(), before);
    EXPECT_EQ(captured.graph.captured(), 1);
    expect_same(eager, captured);

    // Weights and optimiser state from elsewhere, while the graph stays.
    Training other(false, optimizer);
    for (int i = 0; i < 2; ++i) other.step();
    mul_(other.net->parameters()[0].data(), 0.5);
    const nn::StateDict weights = other.net->state_dict();
    for (Training* t : {&eager, &captured}) t->net->load_state_dict(weights);
    EXPECT_TRUE(identical(eager.evaluate(), other.evaluate()));
    for (int i = 0; i < 2; ++i) step();
    for (Training* t : {&eager, &captured}) t->ema->copy_to(*t->net);
    step();
    expect_same(eager, captured);
  }
}

TEST_F(WeightCopiesCuda, OrderOfParametersAndOfWhatBelongsToThem) {
  Training there(false, "adam", kGpu, nn::Precision::f32),
      here(false, "adam", Device::cpu(), nn::Precision::f32);
  const nn::StateDict start = here.net->state_dict();
  expect_same(there.net->state_dict(), start);
  there.step();
  int images = 0;
  for (auto& [name, p] : there.net->named_parameters()) {
    const Layout want = p->data().rank() == 4 ? Layout::channels_last : Layout::plain;
    EXPECT_EQ(p->data().layout(), want) << name;
    EXPECT_EQ(p->grad().layout(), want) << name;
    images += p->data().rank() == 4;
  }
  EXPECT_EQ(images, 5);

  // From the GPU to the CPU and back through state dicts.
  here.net->load_state_dict(there.net->state_dict());
  here.optimizer->load_state_dict(there.optimizer->state_dict());
  here.ema->load_state_dict(there.ema->state_dict());
  expect_same(here, there);
  Training again(false, "adam", kGpu, nn::Precision::f32);
  again.net->load_state_dict(here.net->state_dict());
  again.optimizer->load_state_dict(here.optimizer->state_dict());
  again.ema->load_state_dict(here.ema->state_dict());
  expect_same(again, there);
  for (Training* t : {&again, &there}) t->step();
  expect_same(again, there);

  // And by moving the network.
  const nn::StateDict trained = there.net->state_dict();
  there.net->to(Device::cpu());
  for (auto& [name, p] : there.net->named_parameters()) {
    EXPECT_TRUE(p->data().is_plain()) << name;
    EXPECT_TRUE(p->grad().is_plain()) << name;
    EXPECT_EQ(p->grad().dtype(), DType::f32) << name;
  }
  expect_same(there.net->state_dict(), trained);
}

// ---- bf16 gradients of f32 parameters ----

// x, with a gradient in bf16.
Variable rounded_gradient(const Variable& x) {
  Recorder r("rounded", {x});
  if (r.needs(0)) r.grad(0, [](const Tensor& gy) { return gy.to(DType::bf16); });
  return r.finish(x.data().clone());
}

TEST_F(WeightCopiesCuda, GradientsMayBeBf16UntilTheyAreSums) {
  const Tensor seed = sample({40}, 1, DType::f32).to(kGpu), rounded = seed.to(DType::bf16);
  Variable w(on_gpu({40}, 2), true);
  rounded_gradient(w).backward(seed);
  EXPECT_TRUE(identical(w.grad(), rounded));
  rounded_gradient(w).backward(seed);
  EXPECT_TRUE(identical(w.grad(), mul(rounded.to(DType::f32), 2.0)));
  rounded_gradient(w).backward(seed);
  EXPECT_TRUE(identical(w.grad(), mul(rounded.to(DType::f32), 3.0)));
  w.zero_grad();
  add(rounded_gradient(w), w).backward(seed);
  EXPECT_TRUE(identical(w.grad(), add(rounded.to(DType::f32), seed)));
  w.set_grad(rounded);
  EXPECT_THROW(w.set_grad(seed.to(DType::f64)), GradientError);
  // Not for what is computed, and not on the CPU.
  EXPECT_THROW(rounded_gradient(mul(w, w)).backward(seed), GradientError);
  EXPECT_THROW(
      rounded_gradient(Variable(w.data().to(Device::cpu()), true)).backward(seed.to(Device::cpu())),
      GradientError);
}

TEST_F(WeightCopiesCuda, GradientsOfConvolutions) {
  const Tensor x = on_gpu({2, 8, 6, 6}, 1, DType::bf16);
  Variable w(on_gpu({8, 8, 3, 3}, 2), true);
  const Conv2dOptions o(1, 1);
  const auto backward = [&] {
    const Variable y = conv2d(Variable(x), w, {}, o);
    y.backward(y.data());
    return conv2d_grad_weight(y.data(), x, w.shape(), o, DType::f32);
  };
  const Tensor want = backward();
  EXPECT_EQ(want.dtype(), DType::f32);
  EXPECT_TRUE(identical(w.grad().to(DType::f32), want));
  EXPECT_EQ(w.grad().layout(), Layout::channels_last);
  if (!cuda::is_emulated()) {
    EXPECT_EQ(w.grad().dtype(), DType::bf16) << "as cuDNN stores it";
  }
  backward();
  EXPECT_EQ(w.grad().dtype(), DType::f32);
  EXPECT_TRUE(identical(w.grad(), mul(want, 2.0)));
}

}  // namespace
}  // namespace mtcki

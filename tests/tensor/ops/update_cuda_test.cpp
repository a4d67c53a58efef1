// Optimiser updates on the GPU against the CPU: many tensors of odd sizes, bf16 gradients, device
// scalars in a captured step, norms without host reads.
#include "tensor/ops/elementwise.h"
#include "tensor/ops/update.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using List = std::vector<Tensor>;

class UpdateCuda : public CudaTest {};

// More tensors than one launch takes, sizes around the chunk of a block.
List tensors(uint64_t seed, DType dtype) {
  List out;
  for (const int64_t n : {1, 0, 7, 4095, 4096, 4097, 12289})
    out.push_back(sample({n}, seed + static_cast<uint64_t>(n), dtype));
  for (uint64_t i = 0; i < 70; ++i) out.push_back(sample({3, 2}, 100 * seed + i, dtype));
  return out;
}
List to(const List& list, Device device) {
  List out;
  for (const Tensor& t : list) out.push_back(t.to(device));
  return out;
}
List clones(const List& list) {
  List out;
  for (const Tensor& t : list) out.push_back(t.clone());
  return out;
}
List zeros(const List& list) {
  List out;
  for (const Tensor& t : list) out.push_back(Tensor::zeros_like(t));
  return out;
}
void expect_near(const List& got, const List& want, double tol) {
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(near(got[i], want[i], tol)) << i;
}
void expect_identical(const List& got, const List& want) {
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(identical(got[i], want[i])) << i;
}
// bf16 keeps 8 bits of every step; f64 gets its lr as one f32.
double close(DType dtype) {
  return dtype == DType::bf16 ? 3e-2 : dtype == DType::f32 ? 2e-6 : 1e-7;
}

TEST_F(UpdateCuda, SgdFollowsTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (int form = 0; form < 5; ++form) {
      SgdUpdate u;
      u.lr = 0.1;
      u.weight_decay = 0.01;
      u.grad_scale = 0.5;
      u.momentum = form > 0 ? 0.9 : 0;
      u.dampening = form == 2 ? 0.5 : 0;
      u.nesterov = form == 3;
      u.decoupled = form == 4;
      const List p = tensors(1, dtype), g = tensors(2, dtype), b = zeros(p);
      const List gp = to(p, kGpu), gg = to(g, kGpu), gb = to(b, kGpu);
      for (const Tensor& t : gb)
        if (t.numel() > 0) t.fill_(NAN);  // the first step does not read it
      for (int step = 1; step <= 3; ++step) {
        u.step = step;
        sgd_update_(p, g, form > 0 ? b : List{}, u);
        const uint32_t version = gp[0].version();
        sgd_update_(gp, gg, form > 0 ? gb : List{}, u);
        EXPECT_GT(gp[0].version(), version);
      }
      expect_near(gp, p, close(dtype));
      if (form > 0) expect_near(gb, b, close(dtype));
    }
}

TEST_F(UpdateCuda, AdamFollowsTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const bool decoupled : {false, true}) {
      AdamUpdate u;
      u.lr = 0.01;
      u.beta1 = 0.5;
      u.weight_decay = 0.1;
      u.decoupled = decoupled;
      const List p = tensors(1, dtype), m = zeros(p), v = zeros(p);
      const List gp = to(p, kGpu), gm = to(m, kGpu), gv = to(v, kGpu);
      for (int step = 1; step <= 3; ++step) {
        const List g = tensors(static_cast<uint64_t>(step) + 1, dtype);
        u.step = step;
        adam_update_(p, g, m, v, u);
        adam_update_(gp, to(g, kGpu), gm, gv, u);
      }
      expect_near(gp, p, close(dtype));
      expect_near(gm, m, close(dtype));
      expect_near(gv, v, close(dtype));
    }
}

TEST_F(UpdateCuda, TakesBf16GradientsAndMixedLists) {
  List p = tensors(1, DType::f32), g = tensors(2, DType::bf16);
  p.push_back(sample({5}, 3, DType::f64));
  g.push_back(sample({5}, 4, DType::f64));
  const Tensor x = sample({2, 3, 3, 3}, 5, DType::f32), gx = sample({2, 3, 3, 3}, 6, DType::f32);
  List gp = to(p, kGpu), gg = to(g, kGpu);
  p.push_back(x.clone());
  g.push_back(gx);
  gp.push_back(x.to(kGpu).to(Layout::channels_last));
  gg.push_back(gx.to(kGpu));  // plain beside channels_last
  AdamUpdate u;
  const List m = zeros(p), v = zeros(p), gm = zeros(gp), gv = zeros(gp);
  adam_update_(p, g, m, v, u);
  adam_update_(gp, gg, gm, gv, u);
  expect_near(gp, p, 2e-6);
}

TEST_F(UpdateCuda, EmaFollowsTheCpu) {
  const List d = tensors(1, DType::f32), s = tensors(2, DType::f32);
  const List gd = to(d, kGpu);
  ema_update_(d, s, 0.99);
  ema_update_(gd, to(s, kGpu), 0.99);
  expect_near(gd, d, 1e-6);
}

TEST_F(UpdateCuda, NormAndClippingStayOnTheGpu) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const List g = tensors(1, dtype);
    const double want = global_norm(g);
    EXPECT_NEAR(global_norm(to(g, kGpu)), want, 1e-6 * want);
    const Tensor norm = global_norm_tensor(to(g, kGpu));
    EXPECT_EQ(norm.device(), kGpu);
    EXPECT_NEAR(norm.item(), want, 1e-6 * want);
    const Scalar scale = clip_scale(to(g, kGpu), 2.0);
    EXPECT_TRUE(scale.on_device());
    EXPECT_NEAR(scale.value(), clip_scale(g, 2.0).value(), 1e-7);
    EXPECT_EQ(clip_scale(to(g, kGpu), 1e6).value(), 1.0);
  }
  EXPECT_EQ(clip_scale(List{Tensor::zeros({3}, DType::f32, kGpu)}, 1.0).value(), 1.0);
  const Tensor bad = Tensor::full({3}, NAN, DType::f32, kGpu);
  EXPECT_TRUE(std::isnan(clip_scale(List{bad}, 1.0).value()));
}

Tensor device_scalar(double value) { return Tensor::full({}, value, DType::f32, kGpu); }

// Replays with other rates and step numbers equal eager updates with these, bit for bit.
TEST_F(UpdateCuda, CapturedStepsReadTheirScalars) {
  const List start = to(tensors(1, DType::f32), kGpu), g = to(tensors(2, DType::f32), kGpu);
  const Tensor lr = device_scalar(0.1), step = device_scalar(1), decay = device_scalar(0.9);
  struct State {
    List p, q, b, m, v, average;
  };
  const auto fresh = [&] {
    return State{clones(start), clones(start), zeros(start),
                 zeros(start),  zeros(start),  clones(start)};
  };
  const auto run = [&](State& s, const Scalar& rate, const Scalar& count, const Scalar& keep) {
    const Scalar clip = clip_scale(g, 5.0);
    SgdUpdate u;
    u.lr = rate;
    u.momentum = 0.9;
    u.dampening = 0.5;
    u.step = count;
    u.grad_scale = clip;
    sgd_update_(s.p, g, s.b, u);
    AdamUpdate a;
    a.lr = rate;
    a.step = count;
    a.weight_decay = 0.1;
    a.decoupled = true;
    a.grad_scale = clip;
    adam_update_(s.q, g, s.m, s.v, a);
    ema_update_(s.average, s.q, keep);
  };
  State eager = fresh(), replayed = fresh(), warm = fresh();
  run(warm, Scalar(lr), Scalar(step), Scalar(decay));
  cuda::Graph graph;
  graph.begin();
  run(replayed, Scalar(lr), Scalar(step), Scalar(decay));
  graph.end();
  for (int i = 1; i <= 3; ++i) {
    lr.fill_(0.1 / i);
    step.fill_(i);
    decay.fill_(1 - 0.1 * i);
    graph.launch();
    run(eager, 0.1 / i, i, 1 - 0.1 * i);
    expect_identical(replayed.p, eager.p);
    expect_identical(replayed.q, eager.q);
    expect_identical(replayed.b, eager.b);
    expect_identical(replayed.average, eager.average);
  }
}

}  // namespace
}  // namespace mtcki

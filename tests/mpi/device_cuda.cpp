// Ranks on the emulated GPU, one each: collectives of device memory, batch norm over ranks, steps
// against one process. CTest runs it twice: device memory goes through the host (without
// ParallelNccl), and as work of streams, as NCCL's does (without ParallelHost).
#include "autograd/parallel.h"
#include "autograd/side_stream.h"
#include "nn/models/model.h"
#include "nn/parallel.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/cuda/step_inputs.h"
#include "tests/mpi/mpi_testing.h"

namespace mtcki {
namespace {

using namespace testing;

const Device kGpu = Device::cuda(0);

TEST(ParallelDevice, Collectives) {
  const Tensor t = Tensor::full({5}, world().rank() + 1).to(kGpu);
  world().all_reduce_sum_(t);
  EXPECT_TRUE(close(t, Tensor::full({5}, world().size() * (world().size() + 1) / 2), 0));
  const Tensor all = sample({2 * world().size(), 3, 4, 4}, 1, DType::f32);
  const Tensor got = world().all_gather(own_rows(all).to(Layout::channels_last).to(kGpu));
  EXPECT_EQ(got.device(), kGpu);
  EXPECT_EQ(got.layout(), Layout::channels_last);
  EXPECT_TRUE(identical(got.to(Device::cpu()).plain(), all));
  const Tensor b = Tensor::full({3}, world().rank()).to(kGpu);
  world().broadcast_(b, world().size() - 1);
  EXPECT_TRUE(close(b, Tensor::full({3}, world().size() - 1), 0));
}

TEST(ParallelHost, NothingIsCaptured) {
  cuda::Graph graph;
  const Tensor t = Tensor::full({5}, 1.0).to(kGpu);
  graph.begin();
  EXPECT_THROW(world().all_reduce_sum_(t), CaptureError);
  graph.abandon();
}

struct Step {
  Tensor loss, running;
  std::vector<Tensor> gradients;
};
Step step(const Communicator& comm, Device device) {
  nn::Init init(5);
  const auto net = nn::make_classifier({"resnet8", 3, 8, 10}, init);
  net->to(device);
  net->train();
  nn::make_parallel(*net, comm);
  const int64_t batch = 2 * world().size();
  const RowRange r = rows_of_rank(batch, comm, "batch");
  const Tensor x = sample({batch, 3, 8, 8}, 1, DType::f32).slice(r.begin, r.end);
  const Tensor y = randint(0, 10, {batch}, Rng{1, 1, 0}).slice(r.begin, r.end);
  const Variable loss =
      mean_over_ranks(cross_entropy((*net)(Variable(x.to(device))), y.to(device)), comm);
  loss.backward();
  optim::all_reduce_gradients(net->parameters(), comm);
  Step out{
      loss.data().to(Device::cpu()), net->batch_norms().back()->running_var.to(Device::cpu()), {}};
  for (const Variable& p : net->parameters()) out.gradients.push_back(p.grad().to(Device::cpu()));
  return out;
}

TEST(ParallelDevice, TrainingStepEqualsOneProcess) {
  const Step want = step(Communicator::self(), Device::cpu());
  const Step got = step(world(), kGpu);
  EXPECT_TRUE(close(got.loss, want.loss, 1e-5));
  EXPECT_TRUE(close(got.running, want.running, 1e-5));
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    EXPECT_TRUE(close(got.gradients[i], want.gradients[i], 2e-3)) << i;
    EXPECT_TRUE(same_on_all_ranks(got.gradients[i])) << i;
  }
}

TEST(ParallelDevice, BatchNormInBf16) {
  const int64_t n = 4 * world().size(), c = 16;
  const Tensor x = sample({n, c, 4, 4}, 1, DType::bf16), g = sample({n, c, 4, 4}, 2, DType::bf16);
  const auto run = [&](const Tensor& rows, const Tensor& seed, const Communicator& comm) {
    const Variable v(rows.to(Layout::channels_last).to(kGpu), true);
    const Variable w(Tensor::full({c}, 1.5).to(kGpu), true), b(Tensor::zeros({c}).to(kGpu), true);
    const Tensor mean = Tensor::zeros({c}).to(kGpu), var = Tensor::full({c}, 1).to(kGpu);
    const Variable y =
        batch_norm_train(v, w, b, mean, var, 0.1, 1e-5, Activation::relu(), {}, comm);
    y.backward(seed.to(Layout::channels_last).to(kGpu));
    return std::vector<Tensor>{y.data().to(Device::cpu()), v.grad().to(Device::cpu()),
                               var.to(Device::cpu())};
  };
  const auto want = run(x, g, Communicator::self()), got = run(own_rows(x), own_rows(g), world());
  EXPECT_TRUE(close(got[0], own_rows(want[0].plain()), 0.01));
  EXPECT_TRUE(close(got[1], own_rows(want[1].plain()), 0.02));
  EXPECT_TRUE(close(got[2], want[2], 1e-5));
}

// Teachers as branches, their statistics over ranks, a student's training step: collectives on
// several streams of one step.
nn::StateDict trained(bool capture) {
  nn::Init init(5);
  std::vector<std::unique_ptr<nn::Classifier>> nets;
  for (const char* name : {"resnet8", "wrn10_1", "resnet8"}) {
    nets.push_back(nn::make_classifier({name, 3, 8, 10}, init));
    nets.back()->to(kGpu);
    nets.back()->train();
    nn::make_parallel(*nets.back(), world());
  }
  nn::Classifier& student = *nets.back();
  optim::SgdOptions options;
  options.lr = 0.01;
  options.momentum = 0.9;
  const auto sgd = optim::make_sgd({optim::group_of(student)}, options);
  StepInputs inputs(kGpu);
  StepGraph graph(capture);
  for (uint64_t i = 0; i < StepGraph::kWarmup + 3; ++i) {
    const Tensor x =
        inputs.set("x", own_rows(sample({2 * world().size(), 3, 8, 8}, i, DType::f32)));
    const Tensor y = inputs.set("y", own_rows(randint(0, 10, {2 * world().size()}, Rng{1, 1, i})));
    graph.run("step", [&] {
      std::vector<Tensor> logits;
      {
        const NoGradScope no_grad;
        Branches branches(2, kGpu);
        for (size_t m = 0; m < 2; ++m)
          branches.run([&] { logits.push_back((*nets[m])(Variable(x)).data()); });
      }
      sgd->zero_grad();
      const Variable out = student(Variable(x));
      const Variable loss =
          mean_over_ranks(cross_entropy(add(out, Variable(add(logits[0], logits[1]))), y), world());
      loss.backward();
      optim::all_reduce_gradients(student.parameters(), world(), 16 << 10);
      sgd->step();
    });
  }
  EXPECT_EQ(graph.captured(), capture ? 1 : 0);
  EXPECT_EQ(graph.replayed(), capture ? 2 : 0);
  nn::StateDict all;
  for (const auto& net : nets)
    for (auto& [name, t] : net->state_dict()) all.emplace_back(name, t.to(Device::cpu()));
  return all;
}

TEST(ParallelNccl, CapturedStepsEqualEagerOnes) {
  const nn::StateDict eager = trained(false), captured = trained(true);
  ASSERT_EQ(eager.size(), captured.size());
  for (size_t i = 0; i < eager.size(); ++i) {
    EXPECT_TRUE(identical(eager[i].second, captured[i].second)) << eager[i].first;
    EXPECT_TRUE(same_on_all_ranks(captured[i].second)) << eager[i].first;
  }
}

}  // namespace
}  // namespace mtcki

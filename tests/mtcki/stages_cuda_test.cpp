// The stages of a run on the GPU: they tell the CPU's story within tolerance, a captured step
// repeats the eager one bit for bit, and checkpoints resume on either device.
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "autograd/functions.h"
#include "data/sets/synth10.h"
#include "mtcki/distillation/rounds.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/synthesis/synthesizer.h"
#include "mtcki/training/batch_source.h"
#include "mtcki/training/stage_control.h"
#include "mtcki/training/train_classifier.h"
#include "tensor/allocator.h"
#include "tensor/ops/elementwise.h"
#include "tests/cuda_testing.h"
#include "tests/data/data_testing.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using testing::kGpu;

constexpr char kModel[] = "vgg8_w0.125";
constexpr int64_t kSize = 28;

Compute compute(Device device, bool graph = false) {
  Compute c;
  c.device = device;
  c.graph = graph;
  c.read_every = device.is_cuda() ? 3 : 1;
  return c;
}

std::string bytes_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The values called `name` of all train lines, in order.
std::vector<double> logged(const std::string& dir, const std::string& name) {
  std::ifstream in(dir + "/metrics.jsonl");
  std::vector<double> out;
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line);
    if (j.at("kind") == "train" && j.at("values").contains(name))
      out.push_back(j.at("values").at(name));
  }
  return out;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double rtol,
                 double floor = 1e-3) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], rtol * (std::abs(want[i]) + floor)) << "value " << i;
}

// |a - b| / |b|; values below `floor` count as 0: a bias before a batch norm has no gradient.
double relative_distance(const Tensor& a, const Tensor& b, double floor = 1e-10) {
  const Tensor x = a.to(Device::cpu()).plain(), y = b.to(Device::cpu()).plain();
  double difference = 0, scale = 0;
  const auto p = x.to_vector<float>(), q = y.to_vector<float>();
  for (size_t i = 0; i < p.size(); ++i) {
    difference += (p[i] - q[i]) * static_cast<double>(p[i] - q[i]);
    scale += q[i] * static_cast<double>(q[i]);
  }
  return std::sqrt(difference) / std::max(std::sqrt(scale), floor);
}

class StagesCuda : public testing::CudaTest {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    console::set_silent(true);
    dir_ = (fs::temp_directory_path() /
            ("mtcki_stages_" + std::to_string(getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name()))
               .string();
    fs::remove_all(dir_);
  }
  void TearDown() override {
    fs::remove_all(dir_);
    stop_after_polls(0);
  }

  TrainJob job(const std::string& name, const Compute& c) const {
    TrainJob j;
    j.stage = "teacher/t";
    j.dir = dir_ + "/" + name;
    j.config_sha256 = "x";
    j.spec = {kModel, 1, kSize, 10};
    j.normalization = {{0.5}, {0.25}};
    j.config.epochs = 2;
    j.config.batch_size = 6;
    j.config.lr = 0.05;
    j.config.clip_norm = 5;
    j.config.ema = 0.5;
    j.config.pad = 2;
    j.config.checkpoint_every = 4;
    j.seed = 1;
    j.compute = c;
    return j;
  }
  // Ten steps.
  void train(const std::string& name, const Compute& c) const {
    RunLog log(dir_ + "/" + name, false);
    train_classifier(job(name, c), set(30), set(12), log);
  }
  static data::ImageSet set(int64_t n) {
    data::DatasetSpec spec;
    spec.name = "synth10-gray";
    spec.split = "train";
    spec.limit = n;
    return data::load_dataset(spec);
  }
  std::string model(const std::string& name) const {
    return bytes_of_file(dir_ + "/" + name + "/model.safetensors");
  }

  std::string dir_;
};

TEST_F(StagesCuda, ABatchIsThatOfTheLoader) {
  data::LoaderOptions o;
  o.batch_size = 8;
  o.pad = 3;
  o.flip = true;
  o.seed = 5;
  o.normalization = {{0.4}, {0.3}};
  const data::ImageSet images = set(30);
  for (const data::Mix mix : {data::Mix::none, data::Mix::mixup, data::Mix::cutmix}) {
    o.mix = mix;
    BatchSource here(images, o), there(images, o, kGpu);
    EXPECT_EQ(here.batches_per_pass(), there.batches_per_pass());
    for (const int64_t step : {0, 1, 2, 3, 7, 8, 2}) {
      const data::Batch a = here.at(step), b = there.at(step);
      EXPECT_TRUE(identical(b.images.to(Device::cpu()).plain(), a.images.plain())) << step;
      EXPECT_TRUE(identical(b.labels.to(Device::cpu()), a.labels)) << step;
      EXPECT_TRUE(identical(b.index.to(Device::cpu()), a.index)) << step;
    }
  }
}

TEST_F(StagesCuda, FirstGradientsAreThoseOfTheCpu) {
  const Tensor x = rand({6, 1, kSize, kSize}, Rng{1, 2, 3});
  const Tensor y = randint(0, 10, {6}, Rng{1, 2, 4});
  nn::StateDict grads[2];
  for (const int k : {0, 1}) {
    nn::Init init(3);
    const auto net = nn::make_classifier({kModel, 1, kSize, 10}, init);
    const Device device = k ? kGpu : Device::cpu();
    net->to(device);
    EXPECT_EQ(net->device(), device);
    cross_entropy((*net)(Variable(x.to(device))), y.to(device)).backward();
    for (auto& [name, p] : net->named_parameters()) grads[k].emplace_back(name, p->grad());
    for (auto& [name, b] : net->named_buffers()) grads[k].emplace_back(name, b->to(DType::f32));
  }
  for (size_t i = 0; i < grads[0].size(); ++i)
    EXPECT_LT(relative_distance(grads[1][i].second, grads[0][i].second, 1e-3), 1e-3)
        << grads[0][i].first;
}

TEST_F(StagesCuda, TenTrainingStepsEqualTheCpu) {
  train("cpu", compute({}));
  train("eager", compute(kGpu));
  train("graph", compute(kGpu, true));
  const auto want = logged(dir_ + "/cpu", "loss");
  ASSERT_EQ(want.size(), 10u);
  expect_near(logged(dir_ + "/eager", "loss"), want, 5e-3);
  EXPECT_EQ(logged(dir_ + "/eager", "loss"), logged(dir_ + "/graph", "loss"));
  EXPECT_EQ(logged(dir_ + "/eager", "acc"), logged(dir_ + "/graph", "acc"));
  EXPECT_EQ(logged(dir_ + "/graph", "lr"), logged(dir_ + "/cpu", "lr"));
  EXPECT_EQ(model("eager"), model("graph"));
}

TEST_F(StagesCuda, TrainingResumesOnEitherDevice) {
  train("whole", compute(kGpu, true));
  for (const char* name : {"there", "moved"}) {
    stop_after_polls(7);
    EXPECT_THROW(train(name, compute(kGpu, true)), Stopped);
  }
  train("there", compute(kGpu, true));
  EXPECT_EQ(model("there"), model("whole"));
  train("moved", compute({}));
  nn::Init init(0);
  const auto moved = load_model(dir_ + "/moved/model.safetensors", job("moved", {}).spec, ""),
             whole = load_model(dir_ + "/whole/model.safetensors", job("whole", {}).spec, "");
  const nn::StateDict a = moved->state_dict(), b = whole->state_dict();
  for (size_t i = 0; i < a.size(); ++i)
    if (is_floating(a[i].second.dtype()))
      EXPECT_LT(relative_distance(a[i].second, b[i].second, 0.1), 5e-2) << a[i].first;
    else
      EXPECT_TRUE(identical(a[i].second, b[i].second)) << a[i].first;
}

TEST_F(StagesCuda, NanIsFoundWhenItIsRead) {
  TrainJob j = job("nan", compute(kGpu, true));
  j.config.lr = 1e30;
  j.config.clip_norm = 0;
  RunLog log;
  try {
    train_classifier(j, set(30), set(12), log);
    ADD_FAILURE() << "no error";
  } catch (const NumericError& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("loss term cross_entropy is"));
    EXPECT_THAT(e.what(), ::testing::HasSubstr("were read together"));
  }
}

TEST_F(StagesCuda, OutOfMemoryNamesTheKeyToLower) {
  for (const Device device : {kGpu, Device::cpu()}) {
    TrainJob j = job("memory", compute(device));
    j.config.batch_size = 512;
    RunLog log;
    release_cached_memory(device);
    set_memory_limit(memory_stats(device).in_use + (size_t{4} << 20), device);
    try {
      train_classifier(j, set(512), set(12), log);
      ADD_FAILURE() << "no error";
    } catch (const OutOfMemoryError& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr("Lower train.batch_size (now 512)."));
    }
    set_memory_limit(0, device);
    fs::remove_all(j.dir);
  }
}

std::unique_ptr<Teachers> team(Device device, int count) {
  auto out = std::make_unique<Teachers>();
  for (int m = 0; m < count; ++m) {
    const nn::ModelSpec spec{kModel, 1, kSize, 10};
    nn::Init init(static_cast<uint64_t>(m) + 1);
    auto net = nn::make_classifier(spec, init);
    uint64_t i = 0;  // statistics as a trained network has them: not 0 and 1
    for (nn::BatchNorm2d* bn : net->batch_norms()) {
      bn->running_mean.copy_(mul(randn(bn->running_mean.shape(), Rng{1, 3, i++}), 0.1));
      bn->running_var.copy_(add(rand(bn->running_var.shape(), Rng{1, 3, i++}), 0.5));
    }
    out->add(std::make_unique<Teacher>(
        Teacher::Options{str("t", m), spec, {{0.3}, {0.4}}, 1.0 + m, -1}, std::move(net)));
  }
  out->to(device);
  return out;
}

SynthesisConfig tiny() {
  SynthesisConfig c;
  c.batches = 2;
  c.batch_size = 5;
  c.g_steps = 4;
  c.nz = 8;
  c.ngf = 4;
  c.bank_size = 8;
  c.bank_draw = 6;
  c.head_dim = 8;
  c.pad = 2;
  return c;
}

struct Synthesised {
  std::vector<double> losses;
  std::vector<Synthesizer::Batch> batches;
  std::vector<HistoryContrast::Features> phi;
  int64_t captured = 0;
};

Synthesised synthesise(const SynthesisConfig& c, Device device, bool graph, int teachers = 2,
                       uint64_t seed = 3) {
  const auto all = team(device, teachers);
  Synthesizer::Options o;
  o.channels = 1;
  o.image_size = kSize;
  o.most_batches = c.batches;
  o.seed = seed;
  o.compute = compute(device, graph);
  Synthesizer s(*all, c, o);
  Synthesised out;
  for (int64_t b = 0; b < c.batches; ++b) {
    while (!s.batch_done()) {
      s.step();
      for (const auto& [name, value] : s.read())
        if (name == "loss") out.losses.push_back(value);
    }
    out.batches.push_back(s.finish());
    if (s.contrast()) out.phi.push_back(s.contrast()->latest());
  }
  out.captured = s.graph().captured();
  return out;
}

void expect_same(const Synthesised& a, const Synthesised& b) {
  EXPECT_EQ(a.losses, b.losses);
  for (size_t i = 0; i < a.batches.size(); ++i) {
    EXPECT_TRUE(identical(a.batches[i].images, b.batches[i].images)) << i;
    EXPECT_EQ(a.batches[i].select, b.batches[i].select) << i;
  }
  for (size_t i = 0; i < a.phi.size(); ++i)
    for (size_t h = 0; h < a.phi[i].local.size(); ++h)
      EXPECT_TRUE(identical(a.phi[i].local[h], b.phi.at(i).local[h])) << i;
}

TEST_F(StagesCuda, SynthesisEqualsTheCpuAndItsGraph) {
  const SynthesisConfig c = tiny();
  const Synthesised cpu = synthesise(c, {}, false), eager = synthesise(c, kGpu, false),
                    graph = synthesise(c, kGpu, true);
  ASSERT_EQ(cpu.losses.size(), 8u);
  expect_near(eager.losses, cpu.losses, 1e-2);
  EXPECT_GT(graph.captured, 0);
  expect_same(eager, graph);
}

TEST_F(StagesCuda, SynthesisWithPartOfTheTeachersAndMomentum) {
  SynthesisConfig c = tiny();
  c.batches = 3;
  c.g_steps = 6;
  c.teachers_per_step = 1;
  c.cr_mode = CrMode::each;
  c.bn_mmt = 0.5;
  c.bn_reduce = BnReduce::init;
  const Synthesised eager = synthesise(c, kGpu, false), graph = synthesise(c, kGpu, true);
  EXPECT_GT(graph.captured, 1);
  expect_same(eager, graph);
}

// A teacher that is asked for the first time in a later batch: its statistics are not blended yet
// when those of others are. With this seed it is the first of four: never in the first batch, four
// times in each of the others.
TEST_F(StagesCuda, SynthesisWithTeachersThatJoinLater) {
  SynthesisConfig c = tiny();
  c.batches = 3;
  c.batch_size = 4;
  c.g_steps = 8;
  c.teachers_per_step = 1;
  c.loss["cr"] = 0;
  c.bn_mmt = 0.5;
  c.bn_reduce = BnReduce::sum;
  const Synthesised eager = synthesise(c, kGpu, false, 4, 51),
                    graph = synthesise(c, kGpu, true, 4, 51);
  EXPECT_GT(graph.captured, 0);
  expect_same(eager, graph);
}

// On the CPU, on the GPU, and there as a graph: ten steps of five to a pass, with fresh views and
// with one whose teacher outputs are kept.
class DistillationCuda : public StagesCuda, public ::testing::WithParamInterface<int64_t> {};

TEST_P(DistillationCuda, EqualsTheCpuAndItsGraph) {
  std::vector<double> losses[3];
  std::string models[3];
  for (const int k : {0, 1, 2}) {
    const Compute c = compute(k ? kGpu : Device::cpu(), k == 2);
    const auto teachers = team(c.device, 2);
    Student student("s", {kModel, 1, kSize, 10}, {{0.5}, {0.25}}, 9);
    student.to(c.device);
    DistillJob j;
    j.stage = "student/s";
    j.dir = dir_ + "/" + std::to_string(k);
    j.config_sha256 = "x";
    j.config.epochs = 2;
    j.config.batch_size = 6;
    j.config.lr = 0.05;
    j.config.pad = 2;
    j.config.ts_queue = 12;
    j.config.fuse = Fuse::conf;
    j.config.views = GetParam();
    j.seed = 2;
    j.compute = c;
    RunLog log(j.dir, false);
    distill(j, *teachers, student, set(30), set(12), log);
    losses[k] = logged(j.dir, "loss");
    models[k] = model(std::to_string(k));
  }
  ASSERT_EQ(losses[0].size(), 10u);
  // A divergence at temperature T carries T^2 times the rounding of f32.
  expect_near(losses[1], losses[0], 1e-2, 1e-2);
  EXPECT_EQ(losses[1], losses[2]);
  EXPECT_EQ(models[1], models[2]);
}
INSTANTIATE_TEST_SUITE_P(Views, DistillationCuda, ::testing::Values(0, 1));

}  // namespace
}  // namespace mtcki

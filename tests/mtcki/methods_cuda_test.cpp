// Rounds of method files on the GPU: captured steps repeat the eager ones bit for bit, also when they are
// interrupted. DAFL: a generator that lives on, fresh samples of it; NAYER: noisy layers; DENSE, DFED and
// CDFKD: several teachers against the student, Co-Boosting: whose weights are learnt; SpaceshipNet:
// images of kept maps, and a backward within the step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/dataset.h"
#include "mtcki/config/config.h"
#include "mtcki/distillation/rounds.h"
#include "mtcki/host/console.h"
#include "mtcki/training/stage_control.h"
#include "tests/cuda_testing.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using testing::kGpu;

constexpr char kModel[] = "vgg8_w0.125";

class MethodsCuda : public testing::CudaTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    console::set_silent(true);
    dir_ = (fs::temp_directory_path() / str("mtcki_methods_cuda_", getpid())).string();
    fs::remove_all(dir_);
  }
  void TearDown() override {
    fs::remove_all(dir_);
    stop_after_polls(0);
  }

  // 2 epochs of one round of a few steps of synthesis and 6 of the student; the weights' file.
  std::string distil(const std::string& name, Device device, bool graph) const {
    Compute compute;
    compute.device = device;
    compute.graph = graph;
    compute.read_every = device.is_cuda() ? 3 : 1;
    const nn::ModelSpec spec{kModel, 1, 28, 10};
    Teachers teachers;
    for (uint64_t m = 1; m <= 2; ++m) {
      nn::Init init(m);
      teachers.add(
          std::make_unique<Teacher>(Teacher::Options{str("t", m), spec, {{0.3}, {0.4}}, 1.0, -1},
                                    nn::make_classifier(spec, init)));
    }
    teachers.to(device);
    Student student("s", spec, {{0.5}, {0.25}}, 9);
    student.to(device);
    DistillJob job;
    job.stage = "student/s";
    job.dir = dir_ + "/" + name;
    job.config_sha256 = "x";
    job.seed = 2;
    job.compute = compute;
    const std::string method = GetParam();
    const bool keys = method == "further_keys";
    RunConfig c = load_config(
        keys ? std::vector<std::string>{"synthesis.exchange=0.5", "distill.agree=2",
                                        "distill.priority=1", "distill.cam=1", "distill.heads=1",
                                        "synthesis.cr=0"}
             : std::vector<std::string>{MTCKI_SOURCE_DIR "/configs/methods/" + method + ".toml"},
        {"teachers.0.model=x", "teachers.1.model=y", "students.0.model=x", "synthesis.batches=0",
         "synthesis.nz=8", "synthesis.ngf=4", "synthesis.batch_size=12", "rounds.per_epoch=1",
         "distill.steps_per_epoch=6", "distill.epochs=2", "distill.batch_size=6",
         "distill.checkpoint_every=4"});
    c.synthesis.g_steps = std::min<int64_t>(c.synthesis.g_steps, 2);
    job.config = c.distill;
    job.rounds = c.rounds;
    job.synthesis = c.synthesis;
    job.info.channels = 1;
    job.info.image_size = 28;
    job.options.channels = 1;
    job.options.image_size = 28;
    job.options.normalization = {{0.3}, {0.4}};
    job.options.most_batches = 12;
    job.options.seed = 2;
    job.options.compute = compute;
    data::DatasetSpec test{"synth10-gray", "", "test", 12};
    RunLog log(job.dir, false);
    distill(job, teachers, student, {}, data::load_dataset(test), log);
    return data::read_text(job.dir + "/model.safetensors", uint64_t{1} << 30);
  }

  std::string dir_;
};

TEST_P(MethodsCuda, CapturedStepsAreTheEagerOnesAndResume) {
  const std::string eager = distil("eager", kGpu, false);
  EXPECT_EQ(distil("graph", kGpu, true), eager);
  for (int i = 0; i < 3; ++i) {
    stop_after_polls(4);
    EXPECT_THROW(distil("cut", kGpu, true), Stopped);
  }
  stop_after_polls(0);
  EXPECT_EQ(distil("cut", kGpu, true), eager);
}

INSTANTIATE_TEST_SUITE_P(Files, MethodsCuda,
                         ::testing::Values("dafl", "nayer", "dense", "dfed", "adi", "spaceshipnet",
                                           "cdfkd", "coboosting", "further_keys"),
                         [](const auto& method) { return std::string(method.param); });

}  // namespace
}  // namespace mtcki

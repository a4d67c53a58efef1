// The whole method on a tiny scale: two teachers of different architecture are trained on the
// procedural set, inverted together into a synthetic set, and a student learns from that set alone.
// What `mtcki run` does from a TOML file, here as a program.
// Expect: student above chance: yes
#include <cstdio>
#include <filesystem>

#include "mtcki/run/pipeline.h"
#include "mtcki/synthesis/image_pool.h"

using namespace mtcki;

int main() {
  RunConfig config;
  config.seed = 0;
  config.data.name = "synth10-gray";
  config.data.train_limit = 2000;
  config.data.test_limit = 500;
  config.train.epochs = 3;
  config.train.batch_size = 50;
  config.train.lr = 0.05;
  config.train.pad = 2;
  config.train.flip = false;
  config.teachers.resize(2);
  config.teachers[0].name = config.teachers[0].model = "vgg8_w0.125";
  config.teachers[1].name = config.teachers[1].model = "resnet8";

  SynthesisConfig& s = config.synthesis;
  s.batches = 5;
  s.batch_size = 60;
  s.g_steps = 20;  // optimiser steps per batch of images
  s.nz = 32;
  s.ngf = 8;
  s.lr_g = 1e-2;
  s.bank_size = s.bank_draw = 300;
  s.head_dim = 32;
  s.pad = 2;
  s.flip = false;

  DistillConfig& d = config.distill;
  d.epochs = 6;
  d.steps_per_epoch = 15;
  d.batch_size = 60;
  d.lr = 0.05;
  d.temperature = 4;
  d.ts_queue = 300;
  d.pad = 2;
  d.flip = false;
  config.students.resize(1);
  config.students[0].name = config.students[0].model = "vgg8_w0.125";
  validate(config);

  const std::string folder =
      (std::filesystem::temp_directory_path() / "mtcki_multi_teacher").string();
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  RunLog log;  // silent; RunLog(folder, true) would write metrics and pictures
  const PipelineResult result = run_pipeline(config, folder, log);

  for (const TeacherResult& t : result.teachers)
    std::printf("teacher %-12s %5.1f %%\n", t.name.c_str(), t.top1);
  std::printf("synthetic images %d, classes:", static_cast<int>(result.synthetic_images));
  for (const int64_t n : ImagePool::open(folder + "/synth").count_per_class())
    std::printf(" %d", static_cast<int>(n));
  std::printf("\n");
  for (const auto& [name, value] : result.metrics) std::printf("%-22s %.4g\n", name.c_str(), value);
  const StudentResult& student = result.students.at(0);
  std::printf("student %-12s %5.1f %% (best %.1f %%), agrees with its teachers on %.1f %%\n",
              student.name.c_str(), student.top1, student.top1_best, student.agreement);
  std::printf("student above chance: %s\n", student.top1_best > 15 ? "yes" : "no");
  std::filesystem::remove_all(folder);
}

// Generate once, teach many: a synthetic set is a folder of its own. Here it is made once, read
// back, and teaches two students of different architecture; its bytes do not change.
//
// Expect: one set of 100 images taught 2 students
#include <cstdio>
#include <filesystem>

#include "mtcki/distillation/rounds.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/synthesis/stage.h"

using namespace mtcki;

// An untrained teacher is enough to show how the parts fit together; 15_multi_teacher trains its
// own.
std::unique_ptr<Teacher> make_teacher(const char* name, uint64_t seed, const data::ImageSet& real) {
  const nn::ModelSpec spec{name, 1, 28, 10};
  nn::Init init(seed);
  return std::make_unique<Teacher>(Teacher::Options{name, spec, real.normalization, 1.0, -1},
                                   nn::make_classifier(spec, init));
}

int main() {
  const data::ImageSet test = data::load_dataset({"synth10-gray", "", "test", 100, 0});
  Teachers teachers;
  teachers.add(make_teacher("vgg8_w0.125", 1, test));
  teachers.add(make_teacher("resnet8", 2, test));
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mtcki_reuse";
  std::filesystem::remove_all(folder);
  RunLog log;

  SynthesisJob synthesis;
  synthesis.dir = (folder / "synth").string();
  synthesis.bank_dir = (folder / "bank").string();
  synthesis.config_sha256 = "example";
  synthesis.config.batches = 5;
  synthesis.config.batch_size = 20;
  synthesis.config.g_steps = 5;
  synthesis.config.nz = 16;
  synthesis.config.ngf = 8;
  synthesis.config.head_dim = 16;
  synthesis.options.channels = 1;
  synthesis.options.image_size = 28;
  synthesis.options.most_batches = 5;
  synthesis.info.channels = 1;
  synthesis.info.image_size = 28;
  synthesis.info.class_names = test.class_names;
  synthesis.info.config_sha256 = "example";
  synthesize(synthesis, teachers, log);

  // From here on only the folder is needed.
  const ImagePool pool = ImagePool::open(synthesis.dir);
  const data::ImageSet images = pool.load();  // verifies every shard's checksum
  int taught = 0;
  for (const char* model : {"vgg8_w0.125", "wrn10_1"}) {
    Student student(model, {model, 1, 28, 10}, test.normalization, 0);
    DistillJob job;
    job.stage = std::string("student/") + model;
    job.dir = (folder / "students" / model).string();
    job.config_sha256 = model;
    job.config.epochs = 2;
    job.config.batch_size = 25;
    job.config.ts_queue = 50;
    job.config.pad = 2;
    const DistillResult r = distill(job, teachers, student, images, test, log);
    std::printf("%-12s %d steps, top-1 %.1f %%, weights in %s/model.safetensors\n", model,
                static_cast<int>(r.budget.kd_steps), r.fit.last.top1, job.dir.c_str());
    ++taught;
  }
  pool.verify();  // the same bytes as before
  std::printf("one set of %d images taught %d students\n", static_cast<int>(pool.size()), taught);
  std::filesystem::remove_all(folder);
}

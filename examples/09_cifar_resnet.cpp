// A CIFAR ResNet that is killed in the middle of its training and goes on from its checkpoint: the
// weights at the end are bit for bit those of a training that nobody disturbed. The images are
// procedural (synth10: 32x32 in colour, as CIFAR's); `example_09_cifar_resnet cifar10` takes the
// real ones after `mtcki data get cifar10`.
//
// Expect: killed at step 50, resumed from step 30: the same weights
#include <cstdio>
#include <filesystem>

#include "data/formats/state_file.h"
#include "mtcki/training/stage_control.h"
#include "mtcki/training/train_classifier.h"
#include "tensor/ops/elementwise.h"

using namespace mtcki;

namespace {

TrainJob make_job(const std::string& folder, const data::ImageSet& train) {
  TrainJob job;
  job.stage = "teacher/resnet8";
  job.dir = folder;                                    // model.safetensors, ckpt/
  job.config_sha256 = "example";                       // a checkpoint of other settings is refused
  job.spec = {"resnet8", 3, 32, train.num_classes()};  // resnet20 and so on: the same family
  job.normalization = train.normalization;
  job.config.epochs = 3;
  job.config.batch_size = 50;
  job.config.lr = 0.05;
  job.config.flip = false;  // a mirrored shape may be another one; for CIFAR: true
  return job;               // a checkpoint at the end of each epoch: steps 30, 60, 90
}

bool same_weights(const std::string& a, const std::string& b) {
  const auto first = data::read_state_file(a + "/model.safetensors").tensors;
  const auto second = data::read_state_file(b + "/model.safetensors").tensors;
  for (size_t i = 0; i < first.size(); ++i)
    if (!identical(first[i].second, second[i].second)) return false;
  return first.size() == second.size();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "synth10";
  const data::ImageSet train = data::load_dataset({name, "", "train", 1500, 0});
  const data::ImageSet test = data::load_dataset({name, "", "test", 500, 0});
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mtcki_resnet";
  std::filesystem::remove_all(folder);
  const std::string undisturbed = (folder / "undisturbed").string();
  const std::string killed = (folder / "killed").string();
  RunLog log;

  const FitResult whole = train_classifier(make_job(undisturbed, train), train, test, log);
  std::printf("undisturbed: top-1 %.1f %% after 90 steps\n", whole.last.top1);

  const int kill_at = 50;
  kill_after_polls(kill_at);  // as kill -9 would: nothing is saved at that moment
  try {
    train_classifier(make_job(killed, train), train, test, log);
    return 1;
  } catch (const SimulatedKill&) {
    kill_after_polls(0);
  }
  int64_t found = 0;
  if (const auto state = CheckpointStore(killed + "/ckpt", "example").load()) found = state->step;
  std::printf("killed at step %d; the newest checkpoint is of step %d\n", kill_at,
              static_cast<int>(found));

  const FitResult resumed = train_classifier(make_job(killed, train), train, test, log);
  std::printf("resumed:     top-1 %.1f %%\n", resumed.last.top1);
  const bool same = same_weights(undisturbed, killed);
  std::printf("killed at step %d, resumed from step %d: %s weights\n", kill_at,
              static_cast<int>(found), same ? "the same" : "OTHER");
  std::filesystem::remove_all(folder);
  return same ? 0 : 1;
}

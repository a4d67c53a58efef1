// Somebody else's classifier: a checkpoint written by PyTorch (a dict around a DataParallel state
// dict) is loaded, evaluated, and saved as safetensors with its normalisation. PyTorch
// measured 89.61 % with it (tests/data/make/torch_teacher.py).
//
// Expect: after safetensors: top-1 89\.6[0-9] %; the same: yes
#include <cstdio>
#include <filesystem>

#include "mtcki/networks/model_file.h"
#include "mtcki/training/evaluate.h"

using namespace mtcki;

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "tests/data/torch/vgg8_fashion.pth";
  const data::ImageSet test = data::load_dataset({"fashion-mnist", "", "test", 0, 0});
  nn::ModelSpec spec;
  spec.name = "vgg8_w0.0625";
  spec.in_channels = 1, spec.image_size = 28;

  std::vector<std::string> notes;
  ModelCard card;
  auto net = load_model(path, spec, "", &card, &notes);
  for (const std::string& note : notes) std::printf("note: %s\n", note.c_str());

  // A Teacher is frozen, in eval mode, and normalises by itself: images come in [0,1].
  Teacher::Options options;
  options.name = "somebody's";
  options.spec = spec;
  options.normalization = test.normalization;
  Teacher teacher(options, std::move(net));
  const Accuracy imported = evaluate(teacher, test);
  std::printf("%s: top-1 %.2f %%, top-5 %.2f %% of %lld images\n", path.c_str(), imported.top1,
              imported.top5, static_cast<long long>(imported.n));

  // Save and load again, now with the metadata that a later reader needs.
  const std::string copy =
      (std::filesystem::temp_directory_path() / "teacher.safetensors").string();
  nn::Init init(0);
  auto saved = nn::make_classifier(spec, init);
  saved->load_state_dict(teacher.state_dict());
  card.spec = spec, card.normalization = test.normalization, card.top1 = imported.top1;
  write_model_file(copy, *saved, card);
  Teacher again(options, load_model(copy, spec, ""));
  const Accuracy reloaded = evaluate(again, test);
  std::filesystem::remove(copy);
  std::printf("after safetensors: top-1 %.2f %%; the same: %s\n", reloaded.top1,
              reloaded.top1 == imported.top1 ? "yes" : "no");
}

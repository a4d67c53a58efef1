#include "mtcki/run/preflight.h"

#include <filesystem>

#include "data/sets/dataset.h"
#include "data/sets/verify.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/onnx_import.h"
#include "mtcki/run/context.h"
#include "mtcki/run/no_data.h"
#include "mtcki/training/compute.h"
#include "nn/models/model.h"
#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

// Building a network is the check of its name and of whether it takes this input.
void check_model(const std::string& who, const nn::ModelSpec& spec) {
  try {
    nn::Init init;
    nn::make_classifier(spec, init);
  } catch (const Error& e) {
    throw UsageError(who + ": " + e.what());
  }
}

void check_normalization(const std::string& who, const std::vector<double>& mean,
                         int64_t channels) {
  if (!mean.empty() && std::ssize(mean) != channels)
    throw UsageError(str(who, ": mean and std have ", mean.size(),
                         " values, the images of this set ", channels,
                         channels == 1 ? " channel" : " channels"));
}

// Where imported teachers would do without the missing files.
std::string without_images(const RunConfig& config, const data::DatasetInfo& info) {
  for (const TeacherConfig& t : config.teachers)
    if (t.weights.empty()) return "";
  return str(". Without any real image: data.name=none data.classes=", info.num_classes,
             " data.channels=", info.channels, " data.pixels=", info.image_size);
}

// What the data set's files, or [data] where there are none, say of the images.
nn::ModelSpec shape_of_images(const RunConfig& config, const RunNeeds& needs) {
  nn::ModelSpec spec;
  if (config.data.is_none()) {
    spec.in_channels = config.data.channels > 0 ? config.data.channels : 3;
    spec.image_size = config.data.pixels;
    spec.num_classes = config.data.classes;
    return spec;
  }
  const data::DatasetInfo info = data::dataset_info(config.data.name);
  // One image of the test part is enough.
  const data::DatasetSpec one = dataset_spec(config, "test", 1);
  data::check_dataset_spec(one);
  const std::string dir =
      config.data.dir.empty() ? data::dataset_default_dir(config.data.name) : config.data.dir;
  // The number of classes depends on the files of the user's own folder alone.
  const std::string help =
      str(info.source, ". Set data.dir=...",
          info.num_classes > 0 ? ", or try: mtcki data get " + config.data.name : "");
  std::error_code ec;
  if (!info.procedural && !std::filesystem::is_directory(dir, ec))
    throw DataError(str("dataset ", config.data.name, ": no folder \"", dir, "\"; ", help,
                        without_images(config, info)));
  for (const char* split : {"train", "test"}) {
    if (split == std::string("train") && !needs.training_set) continue;
    const std::vector<std::string> missing = data::missing_files(config.data.name, dir, split);
    if (!missing.empty())
      throw DataError(str("dataset ", config.data.name, ": no file \"", dir, "/", missing.front(),
                          "\"; ", help));
  }
  spec.in_channels = info.channels;
  spec.image_size = info.image_size;
  spec.num_classes = info.num_classes;
  if (config.data.size > 0) spec.image_size = config.data.size;  // which holds for every file
  if (spec.image_size == 0 || spec.num_classes == 0) {
    // The files say it.
    const data::ImageSet set = data::load_dataset(one);
    if (set.images.size(2) != set.images.size(3))
      throw DataError(str("dataset ", config.data.name, ": an image of ", set.images.size(3), " x ",
                          set.images.size(2), " in \"", dir,
                          "\"; networks need square ones: data.size=N brings all to N x N"));
    spec.in_channels = set.images.size(1);
    spec.image_size = set.images.size(2);
    spec.num_classes = set.num_classes();
  }
  return spec;
}

}  // namespace

void preflight(const RunConfig& config, const RunNeeds& needs) {
  compute_of(config);
  rows_of_rank(config.train.batch_size, communicator(), "train.batch_size");
  rows_of_rank(config.synthesis.batch_size, communicator(), "synthesis.batch_size");
  rows_of_rank(config.distill.batch_size, communicator(), "distill.batch_size");
  nn::ModelSpec spec = shape_of_images(config, needs);
  if (needs.generator && config.synthesis.source != "pixels") {
    const SynthesisConfig& s = config.synthesis;
    try {
      nn::Init init;
      nn::make_generator({s.generator, s.nz, s.ngf, spec.in_channels, spec.image_size}, init);
    } catch (const Error& e) {
      throw UsageError(std::string("synthesis.generator: ") + e.what());
    }
  }
  bool any_norms = false;
  for (const TeacherConfig& t : config.teachers) {
    const std::string who = "teachers \"" + t.name + "\"";
    spec.name = t.model;
    if (t.model != kGraphModel || t.weights.empty()) check_model(who, spec);
    check_normalization(who, t.mean, spec.in_channels);
    any_norms = any_norms || t.weights.empty();  // all that are trained here have some
    if (t.weights.empty()) continue;
    require_weights_file(who + ": weights", t.weights);
    ModelCard card;
    const auto net = load_model(t.weights, spec, t.name_map, &card, nullptr, t.weights_key);
    if (needs.generator && net->batch_norms().empty() && config.synthesis.loss.at("bn") > 0)
      throw UsageError(str(
          who, ": ", t.weights, " has no batch norm, so there are no statistics for ",
          "synthesis.bn: ", kKeepsBatchNorms, ". To go on without that term: synthesis.bn = 0"));
    any_norms = any_norms || !net->batch_norms().empty();
    if (config.data.is_none()) known_normalization(t, card.normalization);
  }
  if (config.distill.teacher_bn == TeacherBn::batch && !any_norms)
    throw UsageError(
        "distill.teacher_bn: no teacher has a batch norm that could take the statistics of a "
        "batch; "
        "leave it at running");
  for (const StudentConfig& s : config.students) {
    spec.name = s.model;
    check_model("students \"" + s.name + "\"", spec);
  }
  if (!config.metrics.classifier_model.empty()) {
    spec.name = config.metrics.classifier_model;
    check_model("metrics.classifier_model", spec);
    if (!config.metrics.classifier_weights.empty()) {
      require_weights_file("metrics.classifier_weights:", config.metrics.classifier_weights);
      load_model(config.metrics.classifier_weights, spec, "");
    }
    for (const TeacherConfig& t : config.teachers)
      if (t.model == config.metrics.classifier_model)
        console::warn("metrics.classifier_model is also a teacher's architecture (" + t.model +
                      "): FID-C then favours what that teacher sees");
  }
}

}  // namespace mtcki

// export: weights and synthetic images for other programs.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/image_file.h"
#include "data/formats/state_file.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/export/npz.h"
#include "mtcki/export/onnx.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/statistics_check.h"
#include "mtcki/synthesis/image_pool.h"
#include "tensor/error.h"

namespace mtcki::cli {

namespace fs = std::filesystem;

namespace {

struct ExportWeightsOptions {
  std::string model, weights, name_map, weights_key, out;
  std::vector<double> mean, std;  // empty: those of the file
  int64_t classes = 10, channels = 3, size = 32;
  int64_t opset = 13;  // .onnx only, as fold_bn
  bool opset_given = false, shape_given = false, fold_bn = false;
};

struct ExportImagesOptions {
  std::string set, layout = "imagefolder", out;
};

int export_weights_command(const ExportWeightsOptions& o) {
  const std::string ending = fs::path(o.out).extension().string();
  if (ending != ".safetensors" && ending != ".npz" && ending != ".onnx")
    throw UsageError("--out \"" + o.out + "\": the name must end in .safetensors, .npz or .onnx");
  if (ending != ".onnx" && (o.opset_given || o.fold_bn))
    throw UsageError(
        str(o.fold_bn ? "--fold-bn" : "--opset", ": only for .onnx, but --out is \"", o.out, "\""));
  if (ending == ".npz" && !o.mean.empty()) throw UsageError("--mean: .npz has no place for it");
  check_normalization(o.mean, o.std);
  require_weights_file("--weights", o.weights);
  const data::StateFile file = data::read_state_file(o.weights, o.weights_key);
  ModelCard card = read_model_card(o.weights, file.metadata);
  nn::ModelSpec spec = card.spec;
  if (file.metadata.count("mtcki.num_classes") == 0) {  // not of this tool
    spec.in_channels = o.channels;
    spec.image_size = o.size;
    spec.num_classes = o.classes;
  } else if (o.shape_given) {
    throw UsageError("--classes, --channels, --size: \"" + o.weights +
                     "\" says itself what it takes; leave them out");
  }
  if (!o.model.empty()) spec.name = o.model;
  if (spec.name.empty())
    throw UsageError("--model: needed, because \"" + o.weights +
                     "\" does not say which architecture it holds (mtcki summary --list)");
  std::vector<std::string> notes;
  const auto net = load_model(o.weights, spec, o.name_map, &card, &notes, o.weights_key);
  if (card.spec.name.empty()) note_variants(spec.name, &notes);
  for (const std::string& note : notes) console::info(o.weights + ": " + note);
  card.spec = spec;
  if (!o.mean.empty()) {
    if (std::ssize(o.mean) != spec.in_channels)
      throw UsageError(str("--mean, --std: ", o.mean.size(), " values for ", spec.in_channels,
                           " input channels"));
    card.normalization = {o.mean, o.std};
  }
  net->eval();
  if (ending == ".safetensors") {
    write_model_file(o.out, *net, card);
  } else if (ending == ".npz") {
    const nn::StateDict state = net->state_dict();
    write_npz(o.out, data::NamedTensors(state.begin(), state.end()));
  } else {
    write_onnx(o.out, *net, spec, card.normalization, {o.opset, o.fold_bn, card.classes});
  }
  put("{}: {}, {} parameters\n", o.out, spec.name, net->parameter_count());
  return 0;
}

int export_images_command(const ExportImagesOptions& o) {
  std::error_code ec;
  std::string dir = o.set;
  // A run has a manifest of its own.
  if (!fs::exists(dir + "/manifest.json", ec) || fs::exists(dir + "/config.toml", ec))
    dir += "/synth";
  if (!fs::exists(dir + "/manifest.json", ec))
    throw DataError("\"" + o.set +
                    "\": no synthetic set there (no synth/manifest.json); what students' rounds "
                    "made is in its students/NAME");
  if (fs::exists(o.out, ec) && (!fs::is_directory(o.out, ec) || !fs::is_empty(o.out, ec)))
    throw UsageError("--out \"" + o.out + "\": is there already and not an empty folder");
  const data::ImageSet set = ImagePool::open(dir).load();
  const int64_t classes = set.num_classes();
  const Tensor labels = set.labels.to(DType::i64);
  const std::vector<int64_t> y = labels.to_vector<int64_t>();
  const auto folder_of = [&](int64_t label) {
    // Padded, so that sorting the names sorts the classes.
    return fmt::format("{}/{:0{}}", o.out, label, std::max<size_t>(3, str(classes - 1).size()));
  };
  data::make_directories(o.out);
  // A folder without images is refused by those who read the export; without it, they number the
  // classes behind it one lower.
  for (int64_t k = 0; o.layout == "imagefolder" && k < classes; ++k) {
    if (std::ranges::find(y, k) != y.end())
      data::make_directories(folder_of(k));
    else
      console::warn(str("class ", k,
                        " has no images and gets no folder: readers that count "
                        "folders number the classes behind it one lower"));
  }
  const int64_t n = set.size();
  for (int64_t i = 0; i < n; ++i) {
    const std::string folder = o.layout == "flat" ? o.out : folder_of(y[static_cast<size_t>(i)]);
    const std::string path = fmt::format("{}/{:08}.png", folder, i);
    const Tensor image = set.images.slice(i, i + 1);
    data::write_png(path, image.reshape({image.size(1), image.size(2), image.size(3)}));
  }
  put("{}: {} images, layout {}\n", o.out, n, o.layout);
  return 0;
}

}  // namespace

void add_export(CommandLine* line) {
  const auto weights = std::make_shared<ExportWeightsOptions>();
  const auto images = std::make_shared<ExportImagesOptions>();
  CLI::App* exp =
      line->app->add_subcommand("export", "weights or synthetic images in other formats");
  exp->require_subcommand(1);
  CLI::App* exp_weights =
      exp->add_subcommand("weights", "to .safetensors, .npz or .onnx (by the name of --out)");
  exp_weights->add_option("--weights", weights->weights, "file to read")->required();
  exp_weights->add_option("--model", weights->model, "architecture; default: the file's metadata");
  add_weight_names(exp_weights, &weights->name_map, &weights->weights_key);
  add_normalization(exp_weights, &weights->mean, &weights->std,
                    "input normalisation a,b,c, for the metadata; default: the file's");
  exp_weights->add_option("--out", weights->out, "file to write")->required();
  add_number(exp_weights, "--opset", &weights->opset, ".onnx: version of the operators, 13 to 17",
             13, 17);
  exp_weights->add_flag("--fold-bn", weights->fold_bn,
                        ".onnx: batch norms that follow a convolution become part of it");
  add_input_shape(exp_weights, &weights->classes, &weights->channels, &weights->size);
  CLI::App* exp_images = exp->add_subcommand("images", "a synthetic set as PNG files");
  exp_images->add_option("set", images->set, "run folder, or its synth/ folder")->required();
  add_choice(exp_images, "--layout", &images->layout,
             "imagefolder: one folder per class; flat: all in one", {"imagefolder", "flat"});
  exp_images->add_option("--out", images->out, "folder to write, new or empty")->required();
  line->commands.push_back({exp_weights, [exp_weights, weights] {
                              weights->opset_given = exp_weights->count("--opset") > 0;
                              for (const char* name : {"--classes", "--channels", "--size"})
                                weights->shape_given |= exp_weights->count(name) > 0;
                              return export_weights_command(*weights);
                            }});
  line->commands.push_back({exp_images, [images] { return export_images_command(*images); }});
}

}  // namespace mtcki::cli

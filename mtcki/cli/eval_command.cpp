// eval: accuracy of a weight file on a data set.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "mtcki/host/console.h"
#include "mtcki/networks/class_order.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/evaluate.h"
#include "tensor/error.h"

namespace mtcki::cli {

using nlohmann::json;

namespace {

struct EvalOptions {
  std::string model, weights, data, data_dir, data_fit = "crop", split = "test",
                                              class_order = "sorted", name_map, weights_key;
  int64_t data_size = 0, data_channels = 0, skip_bad = 0;
  std::vector<double> mean, std;
  int64_t limit = 0;
  bool json = false;
  ComputeOptions compute;
};

std::string join(const std::vector<double>& v) {
  std::string out;
  for (const double x : v) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%s%.4g", out.empty() ? "" : ",", x);
    out += buffer;
  }
  return out;
}

double two_decimals(double percent) { return std::round(percent * 100) / 100; }

int eval_command(const EvalOptions& o) {
  // Everything that needs no data is checked before the data is read.
  check_normalization(o.mean, o.std);
  const data::DatasetInfo info = data::dataset_info(o.data);
  const Device device = apply(o.compute);
  require_weights_file("--weights", o.weights);
  nn::ModelSpec spec;
  spec.name = o.model;
  if (spec.name.empty()) {
    spec.name = read_model_card(data::read_state_file(o.weights, o.weights_key).metadata).spec.name;
    if (spec.name.empty())
      throw UsageError("--model: needed, because \"" + o.weights +
                       "\" does not say which architecture it holds (mtcki summary --list)");
  }
  data::ImageSet set;
  const auto load_set = [&] {
    set = data::load_dataset({o.data, o.data_dir, o.split, o.limit, 0, o.data_size, o.data_fit,
                              o.data_channels, o.skip_bad, o.class_order});
    if (!set.note.empty()) console::info(o.data + ": " + set.note);
    spec.in_channels = set.images.size(1);
    spec.image_size = set.images.size(2);
    spec.num_classes = set.num_classes();
  };
  const bool shape_known = info.image_size > 0 && info.num_classes > 0 && o.data_size == 0;
  if (shape_known) {
    spec.in_channels = info.channels;
    spec.image_size = info.image_size;
    spec.num_classes = info.num_classes;
  } else {
    load_set();
  }
  if (!o.mean.empty() && static_cast<int64_t>(o.mean.size()) != spec.in_channels)
    throw UsageError(str("--mean, --std: ", o.mean.size(), " values, but the images of ", o.data,
                         " have ", spec.in_channels,
                         spec.in_channels == 1 ? " channel" : " channels"));
  ModelCard card;
  std::vector<std::string> notes;
  auto net = load_model(o.weights, spec, o.name_map, &card, &notes, o.weights_key);
  if (shape_known) load_set();
  align_classes(*net, &card, set, &notes);
  for (const std::string& note : notes) console::info(o.weights + ": " + note);

  Teacher::Options options;
  options.name = spec.name;
  options.spec = spec;
  const char* source = "--mean, --std";
  if (!o.mean.empty()) {
    options.normalization = {o.mean, o.std};
  } else if (!card.normalization.mean.empty()) {
    options.normalization = card.normalization;
    source = "the file";
  } else {
    options.normalization = set.normalization;
    source = "the data set's default";
  }
  Teacher model(options, std::move(net));
  model.to(device);
  model.set_precision(nn::parse_precision(o.compute.precision));
  const Accuracy a = evaluate(model, set);
  if (const std::string hint = chance_hint(a, set.num_classes()); !hint.empty())
    console::warn(hint);
  if (o.json) {
    std::printf("%s\n", json{{"top1", two_decimals(a.top1)},
                             {"top5", two_decimals(a.top5)},
                             {"n", a.n},
                             {"model", spec.name},
                             {"data", o.data},
                             {"split", o.split},
                             {"mean", options.normalization.mean},
                             {"std", options.normalization.std}}
                            .dump()
                            .c_str());
    return 0;
  }
  std::printf("%s on %s (%s, %lld images): top-1 %.2f %%, top-5 %.2f %%\n", spec.name.c_str(),
              o.data.c_str(), o.split.c_str(), static_cast<long long>(a.n), a.top1, a.top5);
  std::printf("normalisation (%s): mean %s, std %s\n", source,
              join(options.normalization.mean).c_str(), join(options.normalization.std).c_str());
  return 0;
}

}  // namespace

void add_eval(CommandLine* line) {
  const auto o = std::make_shared<EvalOptions>();
  CLI::App* eval = line->app->add_subcommand("eval", "accuracy of a weight file on a data set");
  eval->add_option("--weights", o->weights, "file: .safetensors, .onnx, or a PyTorch .pth/.th/.pt")
      ->required();
  eval->add_option("--model", o->model,
                   "architecture (mtcki summary --list); default: the file's metadata");
  eval->add_option("--data", o->data, "data set (mtcki data list)")->required();
  eval->add_option("--data-dir", o->data_dir,
                   "folder of its files; default: $MTCKI_DATA_DIR/NAME or data/NAME");
  eval->add_option("--data-size", o->data_size, kDataSize)->check(range(0, 4096));
  eval->add_option("--data-fit", o->data_fit, kDataFit)
      ->check(one_of({"crop", "pad"}))
      ->capture_default_str();
  eval->add_option("--data-channels", o->data_channels, "imagefolder: 1 reads grey, 3 colour")
      ->check(one_of({"1", "3"}));
  eval->add_option("--skip-bad", o->skip_bad, kSkipBad)->check(count());
  eval->add_option("--class-order", o->class_order,
                   "sorted; imagefolder: number (2 before 10); tiny-imagenet: file (wnids.txt)")
      ->check(one_of({"sorted", "file", "number"}))
      ->capture_default_str();
  eval->add_option("--mean", o->mean,
                   "input normalisation a,b,c; default: the file's metadata, else the data set's")
      ->delimiter(',');
  eval->add_option("--std", o->std, "standard deviation of the normalisation a,b,c")
      ->delimiter(',');
  eval->add_option("--split", o->split, "test or train")
      ->check(one_of({"test", "train"}))
      ->capture_default_str();
  eval->add_option("--limit", o->limit, "first n images only; 0: all")->check(count());
  eval->add_option("--name-map", o->name_map, kNameMap);
  eval->add_option("--weights-key", o->weights_key, kWeightsKey);
  eval->add_flag("--json", o->json, "print {\"top1\":..,\"top5\":..,\"n\":..} in percent");
  add_compute(eval, &o->compute);
  eval->footer(
      "mtcki eval --weights runs/demo/students/resnet8/model.safetensors --data fashion-mnist");
  line->commands.push_back({eval, [eval, o] {
                              o->compute.device_given = eval->count("--device") > 0;
                              return eval_command(*o);
                            }});
}

}  // namespace mtcki::cli

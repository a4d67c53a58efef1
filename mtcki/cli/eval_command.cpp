// eval: accuracy of a weight file on a data set.
#include <fmt/ranges.h>

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
#include "mtcki/networks/statistics_check.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/evaluate.h"
#include "tensor/error.h"

namespace mtcki::cli {

using nlohmann::json;

namespace {

struct EvalOptions {
  std::string model, weights, name_map, weights_key;
  data::DatasetSpec data{.split = "test"};
  std::vector<double> mean, std;
  bool json = false;
  ComputeOptions compute;
};

double two_decimals(double percent) { return std::round(percent * 100) / 100; }

// What --model names, or the file itself.
std::string model_of(const EvalOptions& o) {
  if (!o.model.empty()) return o.model;
  const data::StateFile file = data::read_state_file(o.weights, o.weights_key);
  const std::string name = read_model_card(o.weights, file.metadata).spec.name;
  if (name.empty())
    throw UsageError("--model: needed, because \"" + o.weights +
                     "\" does not say which architecture it holds (mtcki summary --list)");
  return name;
}

int eval_command(const EvalOptions& o) {
  // Everything that needs no data is checked before the data is read.
  check_normalization(o.mean, o.std);
  const data::DatasetInfo info = data::dataset_info(o.data.name);
  const Device device = apply(o.compute);
  require_weights_file("--weights", o.weights);
  nn::ModelSpec spec;
  spec.name = model_of(o);
  data::ImageSet set;
  const auto load_set = [&] {
    set = data::load_dataset(o.data);
    if (!set.note.empty()) console::info(o.data.name + ": " + set.note);
    spec.in_channels = set.images.size(1);
    spec.image_size = set.images.size(2);
    spec.num_classes = set.num_classes();
  };
  const bool shape_known = info.image_size > 0 && info.num_classes > 0 && o.data.size == 0;
  if (shape_known) {
    spec.in_channels = info.channels;
    spec.image_size = info.image_size;
    spec.num_classes = info.num_classes;
  } else {
    load_set();
  }
  if (!o.mean.empty() && std::ssize(o.mean) != spec.in_channels)
    throw UsageError(str("--mean, --std: ", o.mean.size(), " values, but the images of ",
                         o.data.name, " have ", spec.in_channels,
                         spec.in_channels == 1 ? " channel" : " channels"));
  ModelCard card;
  std::vector<std::string> notes;
  auto net = load_model(o.weights, spec, o.name_map, &card, &notes, o.weights_key);
  if (shape_known) load_set();
  align_classes(*net, &card, set, &notes);
  if (card.spec.name.empty()) note_variants(spec.name, &notes);
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
                             {"data", o.data.name},
                             {"split", o.data.split},
                             {"mean", options.normalization.mean},
                             {"std", options.normalization.std}}
                            .dump()
                            .c_str());
    return 0;
  }
  put("{} on {} ({}, {} images): top-1 {:.2f} %, top-5 {:.2f} %\n", spec.name, o.data.name,
      o.data.split, a.n, a.top1, a.top5);
  put("normalisation ({}): mean {:.4g}, std {:.4g}\n", source,
      fmt::join(options.normalization.mean, ","), fmt::join(options.normalization.std, ","));
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
  eval->add_option("--data", o->data.name, "data set (mtcki data list)")->required();
  eval->add_option("--data-dir", o->data.dir,
                   "folder of its files; default: $MTCKI_DATA_DIR/NAME or data/NAME");
  eval->add_option("--data-size", o->data.size, kDataSize)->check(range(0, 4096));
  add_choice(eval, "--data-fit", &o->data.fit, kDataFit, {"crop", "pad"});
  eval->add_option("--data-channels", o->data.channels, "imagefolder: 1 reads grey, 3 colour")
      ->check(one_of({"1", "3"}));
  eval->add_option("--skip-bad", o->data.skip_bad, kSkipBad)->check(count());
  add_choice(eval, "--class-order", &o->data.class_order,
             "sorted; imagefolder: number (2 before 10); tiny-imagenet: file (wnids.txt)",
             {"sorted", "file", "number"});
  add_normalization(eval, &o->mean, &o->std,
                    "input normalisation a,b,c; default: the file's metadata, else the data set's");
  add_choice(eval, "--split", &o->data.split, "test or train", {"test", "train"});
  eval->add_option("--limit", o->data.limit, "first n images only; 0: all")->check(count());
  add_weight_names(eval, &o->name_map, &o->weights_key);
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

// summary: layers, parameters, MACs and memory of a model.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "mtcki/cli/commands.h"
#include "mtcki/cli/flags.h"
#include "nn/init.h"
#include "nn/models/model.h"
#include "nn/summary.h"
#include "tensor/error.h"

namespace mtcki::cli {

using nlohmann::json;

namespace {

struct SummaryOptions {
  std::string model, generator;
  int64_t classes = 10, channels = 3, size = 32;
  int64_t nz = 256, ngf = 64;  // of the generator
  bool list = false, json = false;
};

int summary_command(const SummaryOptions& o) {
  if (o.list) {
    std::puts("classifiers (--model):");
    for (const std::string& name : nn::classifier_names()) std::printf("  %s\n", name.c_str());
    std::puts(
        "  wrn<d>_<k> for any d = 6n+4 and any k; NAME_w<factor>, as vgg8_w0.5 or vgg8_w0.5_pool,\n"
        "  of all but wrn and the small ResNets");
    std::puts("generators (--generator):");
    for (const std::string& name : nn::generator_names()) std::printf("  %s\n", name.c_str());
    return 0;
  }
  if (o.model.empty() == o.generator.empty())
    throw UsageError("summary: give --model NAME, --generator NAME or --list");
  nn::Init init;
  std::unique_ptr<nn::Module> net;
  Shape input;
  if (!o.model.empty()) {
    net = nn::make_classifier({o.model, o.channels, o.size, o.classes}, init);
    input = {1, o.channels, o.size, o.size};
  } else {
    nn::GeneratorSpec spec;
    spec.name = o.generator;
    spec.nz = o.nz;
    spec.ngf = o.ngf;
    spec.channels = o.channels;
    spec.image_size = o.size;
    net = nn::make_generator(spec, init);
    input = {1, spec.nz};
  }
  const nn::ModelSummary s = nn::summarize(*net, input);
  if (o.json) {
    std::printf("%s\n", json{{"model", o.model.empty() ? o.generator : o.model},
                             {"parameters", s.parameters},
                             {"macs", s.macs},
                             {"parameter_bytes", s.parameter_bytes},
                             {"activation_bytes", s.activation_bytes},
                             {"batch_norms", s.batch_norms},
                             {"batch_norm_channels", s.batch_norm_channels},
                             {"state_keys", s.state_keys}}
                            .dump()
                            .c_str());
    return 0;
  }
  std::fputs(s.table().c_str(), stdout);
  return 0;
}

}  // namespace

void add_summary(CommandLine* line) {
  const auto o = std::make_shared<SummaryOptions>();
  CLI::App* summary =
      line->app->add_subcommand("summary", "layers, parameters, MACs, memory of a model");
  summary->add_option("--model", o->model, "classifier, e.g. wrn40_2");
  summary->add_option("--generator", o->generator, "generator, e.g. cmi");
  summary->add_option("--nz", o->nz, "generator: latent dimensions")
      ->check(range(1, 1 << 16))
      ->capture_default_str();
  summary->add_option("--ngf", o->ngf, "generator: width")
      ->check(range(1, 1 << 12))
      ->capture_default_str();
  summary->add_flag("--list", o->list, "list the known models");
  summary->add_flag("--json", o->json, "totals as JSON");
  add_input_shape(summary, &o->classes, &o->channels, &o->size);
  line->commands.push_back({summary, [o] { return summary_command(*o); }});
}

}  // namespace mtcki::cli

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
  std::string model;
  nn::GeneratorSpec generator{.name = ""};
  int64_t classes = 10;
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
  if (o.model.empty() == o.generator.name.empty())
    throw UsageError("summary: give --model NAME, --generator NAME or --list");
  nn::Init init;
  std::unique_ptr<nn::Module> net;
  Shape input;
  if (!o.model.empty()) {
    const int64_t channels = o.generator.channels, size = o.generator.image_size;
    net = nn::make_classifier({o.model, channels, size, o.classes}, init);
    input = {1, channels, size, size};
  } else {
    net = nn::make_generator(o.generator, init);
    input = {1, o.generator.nz};
  }
  const nn::ModelSummary s = nn::summarize(*net, input);
  if (o.json) {
    std::printf("%s\n", json{{"model", o.model.empty() ? o.generator.name : o.model},
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
  summary->add_option("--generator", o->generator.name, "generator, e.g. cmi");
  add_number(summary, "--nz", &o->generator.nz, "generator: latent dimensions", 1, 1 << 16);
  add_number(summary, "--ngf", &o->generator.ngf, "generator: width", 1, 1 << 12);
  summary->add_flag("--list", o->list, "list the known models");
  summary->add_flag("--json", o->json, "totals as JSON");
  add_input_shape(summary, &o->classes, &o->generator.channels, &o->generator.image_size);
  line->commands.push_back({summary, [o] { return summary_command(*o); }});
}

}  // namespace mtcki::cli

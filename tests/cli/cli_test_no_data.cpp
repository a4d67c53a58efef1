// data.name = "none" as a user meets it: the shipped configuration, the report, and what is refused.
#include "data/formats/state_file.h"
#include "nn/models/model.h"
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

TEST_F(CliTest, TheShippedConfigurationRunsWithoutData) {
  std::vector<std::string> command = {"run", MTCKI_SOURCE_DIR "/configs/no-data.toml",
                                      "out=" + (dir_ / "runs").string(), "threads=1"};
  for (const char* model : {"resnet20_a", "resnet32_a"}) {
    nn::Init init(1);
    const std::string path = (dir_ / model).string(), at = model[6] == '2' ? "0" : "1";
    data::write_safetensors(path, nn::make_classifier({model, 3, 32, 10}, init)->state_dict());
    command.push_back("teachers." + at + ".weights=" + path);
  }
  for (const char* smaller :
       {"synthesis.batches=2", "synthesis.batch_size=16", "synthesis.g_steps=2", "synthesis.nz=8",
        "synthesis.ngf=4", "synthesis.bank_draw=16", "distill.epochs=2", "distill.batch_size=8",
        "students.0.model=resnet8"})
    command.emplace_back(smaller);
  std::vector<std::string> check = command, dry = command;
  check.emplace_back("--check");
  EXPECT_EQ(run(check).code, 0);
  dry.emplace_back("--dry-run");
  const Outcome estimate = run(dry);
  EXPECT_EQ(estimate.code, 0) << estimate.err;
  EXPECT_THAT(estimate.out, HasSubstr("2 imported "));

  const Outcome o = run(command);
  ASSERT_EQ(o.code, 0) << o.err;
  const char* said = "agreement with the fused teachers on 3 of the 32 synthetic images";
  EXPECT_THAT(o.out, AllOf(HasSubstr(said), Not(HasSubstr("top-1 "))));
  const fs::path folder = dir_ / "runs/no-data";
  EXPECT_THAT(read_file(folder / "log.txt"), HasSubstr(said));
  EXPECT_THAT(read_file(folder / "metrics.jsonl"), Not(HasSubstr("top")));
  std::string html = read_file(folder / "report.html");
  html = html.substr(html.find("<body>"));
  EXPECT_THAT(html, AllOf(HasSubstr(said), HasSubstr("best agreement %"), Not(HasSubstr("top-1 %")),
                          Not(HasSubstr("<h2>Confusion")), Not(HasSubstr("<h2>Nearest"))));
}

TEST_F(CliTest, WhatNeedsRealImagesRefusesNone) {
  nn::Init init(1);
  const std::string weights = (dir_ / "w.safetensors").string();
  data::write_safetensors(weights, nn::make_classifier({"resnet8", 3, 32, 10}, init)->state_dict());
  const char* why = "dataset \"none\" has no images";
  refused({"eval", "--data", "none", "--weights", weights, "--model", "resnet8"}, 2, why);
  refused({"data", "verify", "none"}, 2, why);
  refused({"data", "get", "none"}, 2, why);
  refused({"inspect", weights, "--data", "none"}, 2, why);
  // A real set whose folder is missing, where nothing but the numbers needs it.
  refused({"run", config(), "data.train_limit=0", "data.name=cifar10", "data.dir=/nowhere",
           "teachers.0.weights=" + weights, "--check"},
          3,
          "Without any real image: data.name=none data.classes=10 data.channels=3 data.pixels=32");
}

}  // namespace
}  // namespace mtcki

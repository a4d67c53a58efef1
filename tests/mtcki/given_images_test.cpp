// Sets that are not synthesised: real images, noise, the sets of other runs.
#include "mtcki/synthesis/given_images.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "data/formats/json_file.h"
#include "mtcki/run/pipeline.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;

class GivenImagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = (fs::temp_directory_path() / ("mtcki_given_" + std::to_string(getpid()))).string();
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    config_ = load_config({MTCKI_SOURCE_DIR "/configs/synth10-tiny.toml", "synthesis.g_steps=1",
                           "train.epochs=1", "distill.epochs=1"},
                          {});
  }
  void TearDown() override { fs::remove_all(dir_); }
  data::ImageSet set_of(const std::string& source, const std::vector<std::string>& from = {}) {
    RunConfig c = config_;
    c.synthesis.source = source;
    c.synthesis.from = from;
    validate(c);
    RunLog log;
    const std::string folder = dir_ + "/" + source;
    run_teachers(c, folder, log);
    EXPECT_EQ(run_synthesis(c, folder, log), 64);
    EXPECT_EQ(run_synthesis(c, folder, log), 64) << "a finished one";
    return ImagePool::open(folder + "/synth").load();
  }
  static bool equal(const Tensor& a, const Tensor& b) {
    const auto bytes = static_cast<std::ptrdiff_t>(a.numel());
    return a.numel() == b.numel() &&
           std::equal(a.data<uint8_t>(), a.data<uint8_t>() + bytes, b.data<uint8_t>());
  }
  std::string dir_;
  RunConfig config_;
};

TEST_F(GivenImagesTest, RealImagesKeepTheirLabelsAndNoneIsTwice) {
  const data::ImageSet set = set_of("real");
  const data::ImageSet train = data::load_dataset({"synth10", "", "train", 120, config_.seed});
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < set.size(); ++i)
    for (int64_t k = 0; k < train.size(); ++k)
      if (equal(set.images.slice(i, i + 1), train.images.slice(k, k + 1))) {
        rows.push_back(k);
        EXPECT_EQ(set.labels.data<int64_t>()[i], train.labels.data<int64_t>()[k]);
      }
  EXPECT_EQ(rows.size(), 64u);
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(std::unique(rows.begin(), rows.end()) - rows.begin(), 64);
  config_.synthesis.batches = 8;
  config_.name = "more";
  RunLog log;
  config_.synthesis.source = "real";
  run_teachers(config_, dir_ + "/more", log);
  EXPECT_THROW(run_synthesis(config_, dir_ + "/more", log), UsageError) << "128 of 120";
}

TEST_F(GivenImagesTest, NoiseIsEven) {
  const data::ImageSet set = set_of("noise");
  std::vector<int64_t> labels(10);
  for (int64_t i = 0; i < set.size(); ++i)
    ++labels[static_cast<size_t>(set.labels.data<int64_t>()[i])];
  for (const int64_t n : labels) EXPECT_TRUE(n == 6 || n == 7) << n;
  double sum = 0, squares = 0;
  const double n = static_cast<double>(set.images.numel());
  for (int64_t i = 0; i < set.images.numel(); ++i) {
    const double v = set.images.data<uint8_t>()[i];
    sum += v;
    squares += v * v;
  }
  EXPECT_NEAR(sum / n, 127.5, 1);
  EXPECT_NEAR(squares / n - (sum / n) * (sum / n), 255.0 * 255.0 / 12, 50);
  EXPECT_FALSE(equal(set.images.slice(0, 16), set.images.slice(16, 32)));
}

TEST_F(GivenImagesTest, SetsAreJoinedInOrderWithTheirCost) {
  RunLog log;
  std::vector<data::ImageSet> parts;
  int64_t steps = 0;
  for (int i = 0; i < 2; ++i) {
    RunConfig c = config_;
    c.synthesis.batches = i == 0 ? 1 : 3;
    c.seed = static_cast<uint64_t>(i);
    const std::string folder = dir_ + "/part" + std::to_string(i);
    run_teachers(c, folder, log);
    run_synthesis(c, folder, log);
    parts.push_back(ImagePool::open(folder + "/synth").load());
    steps += c.synthesis.batches * c.synthesis.g_steps;
  }
  const data::ImageSet set = set_of("sets", {"../part0", "../part1"});
  EXPECT_TRUE(equal(set.images.slice(0, 16), parts[0].images));
  EXPECT_TRUE(equal(set.images.slice(16, 64), parts[1].images));
  const auto done = data::read_sealed_json(dir_ + "/sets/synth/done.json");
  EXPECT_EQ(done.at("budget").at("generator_steps"), steps);
  EXPECT_EQ(done.at("budget").at("images"), 64);
  EXPECT_GT(done.at("budget").at("forward_macs"), 0);

  RunConfig c = config_;
  c.synthesis.source = "sets";
  c.synthesis.from = {"../part0"};
  run_teachers(c, dir_ + "/wrong", log);
  EXPECT_THROW(run_synthesis(c, dir_ + "/wrong", log), UsageError) << "16 images, not 64";
  c.synthesis.from = {"../nowhere"};
  run_teachers(c, dir_ + "/nothing", log);
  EXPECT_THROW(run_synthesis(c, dir_ + "/nothing", log), DataError);
}

TEST_F(GivenImagesTest, WhatDoesNotGoTogetherIsRefused) {
  config_.synthesis.source = "sets";
  EXPECT_THROW(validate(config_), UsageError) << "which ones?";
  config_.synthesis.source = "real";
  config_.synthesis.from = {"x"};
  EXPECT_THROW(validate(config_), UsageError);
  config_.synthesis.from = {};
  EXPECT_NO_THROW(validate(config_));
  config_.rounds.per_epoch = 1;
  config_.distill.steps_per_epoch = 4;
  EXPECT_THROW(validate(config_), UsageError) << "nothing to continue";
}

}  // namespace
}  // namespace mtcki

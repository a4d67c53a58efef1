// The synthetic set on disk: shards, manifest, restart, damage.
#include "mtcki/synthesis/image_pool.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;

class ImagePoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = (fs::temp_directory_path() /
            ("mtcki_pool_" +
             std::string(::testing::UnitTest::GetInstance()->current_test_info()->name())))
               .string();
    fs::remove_all(dir_);
    info_.channels = 1;
    info_.image_size = 4;
    info_.num_classes = 3;
    info_.class_names = {"a", "b", "c"};
    info_.config_sha256 = "abc";
  }
  void TearDown() override { fs::remove_all(dir_); }
  Tensor images(int seed) const {
    return randint(0, 256, {5, 1, 4, 4}, Rng{static_cast<uint64_t>(seed), 1, 0}).to(DType::u8);
  }
  Tensor labels() const { return Tensor::from(std::vector<int64_t>{0, 0, 1, 2, 2}, {5}); }

  std::string dir_;
  PoolInfo info_;
};

TEST_F(ImagePoolTest, RoundTrip) {
  ImagePool pool(dir_, info_);
  pool.add(0, images(0), labels());
  pool.add(1, images(1), labels(), {{"t", Tensor::zeros({5, 3})}});
  const ImagePool opened = ImagePool::open(dir_);
  EXPECT_EQ(opened.size(), 10);
  EXPECT_EQ(opened.count_per_class(), (std::vector<int64_t>{4, 2, 4}));
  const data::ImageSet set = opened.load();
  EXPECT_TRUE(identical(set.images.slice(0, 5).clone(), images(0)));
  EXPECT_TRUE(identical(set.images.slice(5, 10).clone(), images(1)));
  EXPECT_TRUE(identical(set.labels.slice(5, 10).clone(), labels()));
  EXPECT_EQ(set.class_names, info_.class_names);
}

TEST_F(ImagePoolTest, ContinuesAndMakesLaterShardsAgain) {
  {
    ImagePool pool(dir_, info_);
    for (int b = 0; b < 3; ++b) pool.add(b, images(b), labels());
  }
  ImagePool again(dir_, info_);
  EXPECT_EQ(again.batches(), 3);
  again.truncate(1);
  EXPECT_EQ(ImagePool::open(dir_).batches(), 1);
  again.add(1, images(1), labels());
  EXPECT_EQ(ImagePool::open(dir_).size(), 10);
  EXPECT_THROW(again.add(5, images(5), labels()), Error);  // a gap
}

TEST_F(ImagePoolTest, ClassNamesThatAreNotUtf8) {
  info_.class_names[0] = "caf\xe9";
  ImagePool(dir_, info_).add(0, images(0), labels());
  EXPECT_EQ(ImagePool::open(dir_).info().class_names[0], "caf\xef\xbf\xbd");
}

TEST_F(ImagePoolTest, AnotherConfigurationStartsAnew) {
  ImagePool(dir_, info_).add(0, images(0), labels());
  info_.config_sha256 = "other";
  EXPECT_EQ(ImagePool(dir_, info_).batches(), 0);
}

TEST_F(ImagePoolTest, DamageIsNamed) {
  ImagePool pool(dir_, info_);
  pool.add(0, images(0), labels());
  pool.add(1, images(1), labels());
  const std::string file = dir_ + "/shard-00001.safetensors";
  {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(-3, std::ios::end);
    f.put('\x7e');
  }
  try {
    ImagePool::open(dir_).load();
    FAIL() << "damage was not noticed";
  } catch (const DataError& e) {
    EXPECT_NE(std::string(e.what()).find("shard-00001"), std::string::npos) << e.what();
  }
  fs::remove(file);
  EXPECT_THROW(ImagePool::open(dir_).load(), DataError);
}

TEST_F(ImagePoolTest, BadManifests) {
  EXPECT_THROW(ImagePool::open(dir_), DataError);
  fs::create_directories(dir_);
  for (const char* text : {"", "{", "[]", "{\"format_version\": 99}", "{\"format_version\": 1}",
                           "{\"format_version\": \"x\"}"}) {
    std::ofstream(dir_ + "/manifest.json") << text;
    EXPECT_THROW(ImagePool::open(dir_), DataError) << text;
  }
}

}  // namespace
}  // namespace mtcki

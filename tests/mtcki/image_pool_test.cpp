// The synthetic set on disk: shards, manifest, restart, damage.
#include "mtcki/synthesis/image_pool.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "data/formats/atomic_file.h"
#include "data/formats/json_file.h"
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

// A manifest that is whole but whose numbers contradict each other or the files: nothing is believed
// that memory or rows would follow.
TEST_F(ImagePoolTest, NumbersThatContradictEachOther) {
  ImagePool pool(dir_, info_);
  pool.add(0, images(0), labels());
  pool.add(1, images(1), labels());
  const std::string path = dir_ + "/manifest.json";
  const nlohmann::json good = data::read_sealed_json(path);
  const auto refused = [&](const char* what, const std::function<void(nlohmann::json&)>& edit) {
    nlohmann::json m = good;
    edit(m);
    data::write_sealed_json(path, m);
    try {
      ImagePool::open(dir_).load();
      ADD_FAILURE() << what << ": accepted";
    } catch (const DataError& e) {
      EXPECT_NE(std::string(e.what()).find("delete the folder"), std::string::npos) << e.what();
    }
  };
  refused("a hole", [](auto& m) { m["shards"][1]["first"] = 10; });
  refused("twice the same rows", [](auto& m) { m["shards"][1]["first"] = 0; });
  refused("before the first", [](auto& m) { m["shards"][0]["first"] = -5; });
  refused("far away", [](auto& m) { m["shards"][1]["first"] = int64_t{1} << 50; });
  refused("none", [](auto& m) { m["shards"] = nlohmann::json::array(); });
  refused("no rows", [](auto& m) { m["shards"][1]["count"] = 0; });
  refused("more rows than bytes", [](auto& m) { m["shards"][1]["count"] = int64_t{1} << 40; });
  refused("bytes of another file", [](auto& m) { m["shards"][1]["bytes"] = 1 << 20; });
  refused("huge images", [](auto& m) { m["shape"] = {1, int64_t{1} << 31, int64_t{1} << 31}; });
  refused("no images", [](auto& m) { m["shape"] = {1, 0, 0}; });
  refused("a path", [](auto& m) { m["shards"][1]["file"] = "../x"; });
  refused("the same file twice", [](auto& m) { m["shards"][1] = m["shards"][0]; });
  refused("classes", [](auto& m) { m["num_classes"] = 1 << 30; });
  data::write_sealed_json(path, good);
  EXPECT_EQ(ImagePool::open(dir_).load().size(), 10);
  // An edit without the checksum.
  nlohmann::json m = data::read_json(path);
  m["shards"].erase(1);
  data::write_file_atomic(path, m.dump());
  EXPECT_THROW(ImagePool::open(dir_), DataError);
}

TEST_F(ImagePoolTest, ACheckpointKnowsItsImages) {
  ImagePool pool(dir_, info_);
  for (int b = 0; b < 3; ++b) pool.add(b, images(b), labels());
  const uint32_t two = pool.digest(2);
  EXPECT_NO_THROW(pool.require(2, two));
  EXPECT_THROW(pool.require(3, two), DataError);
  EXPECT_THROW(pool.require(4, two), DataError);
  pool.add(1, images(9), labels());
  EXPECT_THROW(pool.require(2, two), DataError);
}

}  // namespace
}  // namespace mtcki

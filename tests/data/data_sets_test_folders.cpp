// Folders of images: the order of the classes, and what lies there instead.
#include <filesystem>

#include "data/formats/image_file.h"
#include "data/sets/dataset.h"
#include "data/sets/image_folder.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TempDir;

Tensor one_colour(int value) { return Tensor::full({3, 4, 4}, value, DType::u8); }

TEST(ImageFolder, NumbersInNamesAreSaidOrCounted) {
  TempDir dir;
  for (int k = 0; k < 12; ++k)
    for (const char* split : {"training/", "validation/"}) {
      const std::string folder = dir / split + std::to_string(k);
      std::filesystem::create_directories(folder);
      write_png(folder + "/x.png", one_colour(k));
    }
  DatasetSpec spec{"imagefolder", dir.path(), "train"};
  ImageSet set = load_dataset(spec);
  EXPECT_EQ(set.class_names[2], "10");
  EXPECT_THAT(set.note, HasSubstr("(0, 1, 10, 11, ...)"));
  EXPECT_THAT(set.note, HasSubstr("data.class_order = \"number\""));
  spec.split = "test";
  spec.class_order = "number";
  set = load_dataset(spec);
  EXPECT_EQ(set.class_names[10], "10");
  for (int64_t k = 0; k < 12; ++k) EXPECT_EQ(set.images.data<uint8_t>()[k * 48], k);
  EXPECT_THAT(set.note, HasSubstr("its test images are those of validation/"));
  spec.name = "mnist";
  EXPECT_THAT(message_of<UsageError>([&] { load_dataset(spec); }), HasSubstr("for imagefolder"));
}

TEST(ImageFolder, WhatLiesThereInstead) {
  TempDir dir;
  const auto text = [&](const char* split) {
    return message_of<DataError>([&] { load_image_folder(dir.path(), split); });
  };
  for (const char* folder : {"cat", "dog"}) std::filesystem::create_directories(dir / folder);
  EXPECT_THAT(text("train"), HasSubstr("found the folders cat, dog; put the images into train/"));
  std::filesystem::create_directories(dir / "test");
  write_png(dir / "test/1.png", one_colour(1));
  EXPECT_THAT(text("test"), HasSubstr("labels in a table are not read"));
  // Unlabelled images for a competition beside labelled ones.
  std::filesystem::create_directories(dir / "val/cat");
  write_png(dir / "val/cat/1.png", one_colour(1));
  const ImageSet set = load_image_folder(dir.path(), "test");
  EXPECT_EQ(set.size(), 1);
  EXPECT_THAT(set.note, HasSubstr("those of val/, as test/ has no folders of classes"));
}

}  // namespace
}  // namespace mtcki::data

// Resizing: the same pixels as PIL's BILINEAR, squares by cropping and padding, image folders of
// mixed sizes.
#include <algorithm>
#include <filesystem>

#include "data/formats/image_file.h"
#include "data/resize.h"
#include "data/sets/dataset.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TempDir;

Tensor picture(int64_t channels, int64_t h, int64_t w) {
  Tensor t = Tensor::empty({channels, h, w}, DType::u8);
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<uint8_t>()[i] = static_cast<uint8_t>(i * i * 37 + i * 11 + 5);
  return t;
}

// numpy.array(Image.fromarray(picture).resize((w, h), Image.BILINEAR)), Pillow.
TEST(Resize, SamePixelsAsPil) {
  struct Case {
    int64_t h, w;
    std::vector<int> pixels;
  };
  for (const Case& c :
       {Case{3, 4, {72, 124, 173, 116, 157, 132, 141, 106, 178, 119, 116, 171}},
        Case{
            8, 8, {5,   44,  137, 141, 121, 157, 199, 123, 48,  89,  107, 142, 173, 176, 144, 70,
                   112, 143, 73,  144, 234, 194, 71,  12,  199, 104, 117, 151, 174, 138, 48,  122,
                   220, 127, 144, 136, 127, 120, 88,  165, 174, 214, 154, 99,  94,  140, 191, 141,
                   151, 208, 143, 86,  85,  139, 200, 141, 137, 196, 133, 79,  80,  136, 200, 143}},
        Case{2, 7, {107, 102, 114, 165, 185, 116, 86, 173, 180, 123, 92, 124, 160, 143}},
        Case{5, 3, {62, 135, 165, 110, 175, 92, 146, 138, 99, 187, 112, 165, 160, 98, 164}}}) {
    const std::vector<uint8_t> got = resize(picture(1, 5, 7), c.h, c.w).to_vector<uint8_t>();
    ASSERT_EQ(got.size(), c.pixels.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_EQ(static_cast<int>(got[i]), c.pixels[i]) << c.h << " x " << c.w << ", pixel " << i;
  }
}

TEST(Resize, ChannelsAreSeparateAndConstantsStay) {
  const Tensor x = picture(3, 9, 6);
  const Tensor y = resize(x, 4, 5);
  for (int64_t k = 0; k < 3; ++k)
    EXPECT_EQ(y.slice(k, k + 1).to_vector<uint8_t>(),
              resize(x.slice(k, k + 1), 4, 5).to_vector<uint8_t>());
  for (const int64_t side : {1, 3, 50}) {
    const Tensor flat = resize(Tensor::full({1, 7, 11}, 201, DType::u8), side, side);
    EXPECT_EQ(flat.to_vector<uint8_t>(),
              std::vector<uint8_t>(static_cast<size_t>(side * side), 201));
  }
  EXPECT_EQ(resize(x, 9, 6).to_vector<uint8_t>(), x.to_vector<uint8_t>());
  EXPECT_THROW(resize(Tensor::zeros({1, 2, 2}), 2, 2), ShapeError);
  EXPECT_THROW(resize(x, 0, 2), ShapeError);
}

TEST(ResizeToSquare, CropTakesTheCentreSquare) {
  Tensor x = Tensor::zeros({1, 4, 9}, DType::u8);  // columns 2..5 are the centre square
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 2; j < 6; ++j) x.data<uint8_t>()[i * 9 + j] = 100;
  EXPECT_EQ(resize_to_square(x, 8, Fit::crop).to_vector<uint8_t>(), std::vector<uint8_t>(64, 100));
  EXPECT_EQ(resize_to_square(x, 4, Fit::crop).to_vector<uint8_t>(), std::vector<uint8_t>(16, 100));
}

TEST(ResizeToSquare, PadKeepsEverythingOnBlack) {
  const Tensor y = resize_to_square(Tensor::full({3, 4, 8}, 9, DType::u8), 6, Fit::pad);
  ASSERT_EQ(y.shape(), (Shape{3, 6, 6}));
  for (int64_t k = 0; k < 3; ++k)
    for (int64_t i = 0; i < 6; ++i)
      for (int64_t j = 0; j < 6; ++j)  // 3 rows of 6, below 1 and above 2 black ones
        EXPECT_EQ(y.data<uint8_t>()[(k * 6 + i) * 6 + j], i >= 1 && i < 4 ? 9 : 0) << i;
  // The shorter side never vanishes.
  const Tensor line = resize_to_square(Tensor::full({1, 1, 1000}, 9, DType::u8), 4, Fit::pad);
  EXPECT_EQ(std::count(line.data<uint8_t>(), line.data<uint8_t>() + 16, 9), 4);
}

TEST(ImageFolderSize, MixedSizesAndGreyBecomeOneSize) {
  TempDir dir;
  for (const char* sub : {"train/a", "train/b"}) std::filesystem::create_directories(dir / sub);
  write_png(dir / "train/a/1.png", picture(3, 8, 8));
  write_png(dir / "train/a/2.png", Tensor::full({1, 20, 10}, 50, DType::u8));
  write_png(dir / "train/b/3.png", picture(3, 30, 40));
  EXPECT_THAT(message_of<DataError>([&] {
                load_dataset({"imagefolder", dir.path(), "train"});
              }),
              AllOf(HasSubstr("2.png\": expected an image of 8 x 8"), HasSubstr("1.png"),
                    HasSubstr("found 10 x 20; data.size=N")));
  const ImageSet set = load_dataset({"imagefolder", dir.path(), "train", 0, 0, 8});
  ASSERT_EQ(set.images.shape(), (Shape{3, 3, 8, 8}));
  EXPECT_EQ(set.images.slice(0, 1).to_vector<uint8_t>(), picture(3, 8, 8).to_vector<uint8_t>());
  EXPECT_EQ(set.images.slice(1, 2).to_vector<uint8_t>(), std::vector<uint8_t>(192, 50));
  EXPECT_EQ(set.note, "2 of 3 images (8 x 8 to 40 x 30) became 8 x 8: centre square, bilinear");
  const ImageSet padded = load_dataset({"imagefolder", dir.path(), "train", 0, 0, 8, "pad"});
  EXPECT_EQ(padded.images.data<uint8_t>()[192], 0) << "a black border";
  EXPECT_THAT(padded.note, HasSubstr("padded with black"));
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "train", 1, 0, 8}).note, "");
  EXPECT_THAT(message_of<UsageError>([&] {
                load_dataset({"synth10", "", "test", 1, 0, 8});
              }),
              HasSubstr("a size is for imagefolder"));
  EXPECT_THROW(load_dataset({"imagefolder", dir.path(), "train", 0, 0, 8, "squeeze"}), UsageError);
}

}  // namespace
}  // namespace mtcki::data

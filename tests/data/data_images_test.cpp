// PNG and JPEG, image grids.
#include "data/formats/checksum.h"
#include "data/formats/image_file.h"
#include "data/formats/state_file.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using testing::fixture;
using testing::from_hex;
using ::testing::HasSubstr;
using testing::message_of;
using testing::read_all;
using testing::TempDir;
using testing::write_all_text;

TEST(Png, VectorWithAStoredBlock) {
  const std::string png = from_hex(
      "89504e470d0a1a0a0000000d49484452000000010000000108020000009077 53de"
      "0000000f49444154780101040 0fbff00ff8000040101 80e3c24ac30000000049454e44ae426082");
  ASSERT_EQ(png.size(), 72u);
  EXPECT_EQ(crc32c(png.data(), png.size()), 0x3e55c6d7u);
  EXPECT_EQ(decode_png(as_bytes(png), "f").to_vector<uint8_t>(),
            (std::vector<uint8_t>{255, 128, 0}));
}

TEST(Png, RoundTrip) {
  for (const int64_t channels : {1, 3})
    for (const auto& [h, w] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {64, 33}}) {
      Tensor t = Tensor::empty({channels, h, w}, DType::u8);
      for (int64_t i = 0; i < t.numel(); ++i)
        t.data<uint8_t>()[i] = static_cast<uint8_t>(i * i * 31 + i);
      const std::string png = encode_png(t);
      EXPECT_EQ(decode_png(as_bytes(png), "f", static_cast<int>(channels)).to_vector<uint8_t>(),
                t.to_vector<uint8_t>());
    }
  TempDir dir;
  const Tensor t = Tensor::full({3, 2, 2}, 9, DType::u8);
  write_png(dir / "a.png", t);
  EXPECT_EQ(read_image(dir / "a.png").to_vector<uint8_t>(), t.to_vector<uint8_t>());
}

TEST(Png, RefusesOtherTensors) {
  EXPECT_THROW(encode_png(Tensor()), ShapeError);
  EXPECT_THROW(encode_png(Tensor::zeros({3, 2, 2})), ShapeError);
  EXPECT_THROW(encode_png(Tensor::zeros({2, 2, 2}, DType::u8)), ShapeError);
  EXPECT_THROW(encode_png(Tensor::zeros({3, 0, 2}, DType::u8)), ShapeError);
  EXPECT_THROW(image_grid(Tensor::zeros({3, 2, 2}, DType::u8)), ShapeError);
}

TEST(Images, SamePixelsAsPil) {
  const NamedTensors pictures = read_state_file(fixture("images.safetensors")).tensors;
  ASSERT_EQ(pictures.size(), 11u);
  for (const auto& [name, want] : pictures) {
    const bool grey = name == "rgb.png-grey";
    const Tensor got = read_image(fixture(grey ? "rgb.png" : name), grey ? 1 : 3);
    ASSERT_EQ(got.shape(), want.shape()) << name;
    EXPECT_EQ(got.to_vector<uint8_t>(), want.to_vector<uint8_t>()) << name;
  }
}

TEST(Png, SixteenBitsKeepTheUpperByte) {
  const Tensor t = read_image(fixture("sixteen.png"), 1);
  ASSERT_EQ(t.shape(), (Shape{1, 6, 5}));
  for (int64_t i = 0; i < 30; ++i) EXPECT_EQ(t.data<uint8_t>()[i], i * 2000 >> 8) << i;
}

// What PIL's convert("RGB") gives: 10 20 30, 40 50 60.
TEST(Png, PaletteWithTransparentEntries) {
  const std::string png = from_hex(
      "89504e470d0a1a0a0000000d4948445200000002000000010803000000c3fc8fb800000006504c54450a141e2832"
      "3c"
      "d51bb4e90000000174524e530040e6d8660000000b49444154789c636060040000040002bf7a3f4a00000000"
      "49454e44ae426082");
  EXPECT_EQ(decode_png(as_bytes(png), "f").to_vector<uint8_t>(),
            (std::vector<uint8_t>{10, 40, 20, 50, 30, 60}));
}

TEST(Images, Refusals) {
  const auto text = [](const std::string& content) {
    return message_of<DataError>([&] { decode_image(as_bytes(content), "f"); });
  };
  EXPECT_THAT(text(""), HasSubstr("an empty file"));
  EXPECT_THAT(text("<html>"), HasSubstr("HTML"));
  EXPECT_THAT(text("GIF89a"), HasSubstr("a PNG or JPEG image"));
  for (const char* name : {"rgb.png", "q75_420.jpg", "q40_422_progressive.jpg"}) {
    const std::string whole = read_all(fixture(name));
    for (const size_t cut : {size_t{3}, whole.size() / 2, whole.size() - 2})
      EXPECT_THROW(decode_image(as_bytes(whole.substr(0, cut)), "f"), DataError)
          << name << " " << cut;
  }
  // A PNG header that claims 60000 x 60000 pixels in a hundred bytes: refused before memory is
  // taken.
  std::string png = encode_png(Tensor::zeros({3, 1, 1}, DType::u8));
  const std::string big = from_hex("0000ea600000ea60");
  png.replace(16, 8, big);
  const uint32_t crc = crc32(png.data() + 12, 17);
  for (int i = 0; i < 4; ++i)
    png[29 + static_cast<size_t>(i)] = static_cast<char>(crc >> (24 - 8 * i));
  EXPECT_THAT(text(png), HasSubstr("60000 x 60000"));
  std::string jpeg = read_all(fixture("q90_444.jpg"));
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, from_hex("ea60ea60"));
  EXPECT_THAT(text(jpeg), HasSubstr("60000 x 60000"));
}

TEST(Images, Grid) {
  Tensor images = Tensor::empty({3, 1, 2, 2}, DType::u8);
  for (int64_t i = 0; i < 12; ++i) images.data<uint8_t>()[i] = static_cast<uint8_t>(i);
  const Tensor grid = image_grid(images, 2, 1);
  EXPECT_EQ(grid.shape(), (Shape{1, 5, 5}));
  const int w = 255;
  EXPECT_EQ(grid.to_vector<uint8_t>(),
            (std::vector<uint8_t>{0, 1, w, 4, 5, 2, 3, w,  6,  7, w, w, w,
                                  w, w, 8, 9, w, w, w, 10, 11, w, w, w}));
  EXPECT_EQ(image_grid(Tensor::zeros({7, 3, 4, 4}, DType::u8)).shape(), (Shape{3, 16, 16}));
}

}  // namespace
}  // namespace mtcki::data

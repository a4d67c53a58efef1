#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "data/formats/atomic_file.h"
#include "data/formats/image_file.h"

namespace mtcki::data {

namespace {

void check_image(const char* op, const Tensor& image, int rank) {
  if (!image.defined() || image.rank() != rank || image.dtype() != DType::u8 || !image.is_plain() ||
      (image.size(rank - 3) != 1 && image.size(rank - 3) != 3) || image.numel() == 0)
    throw ShapeError(str(op, ": needs u8 ", rank == 3 ? "[C,H,W]" : "[N,C,H,W]",
                         " with C = 1 or 3, got ", image.defined() ? image.describe() : "none"));
}

}  // namespace

std::string encode_png(const Tensor& image) {
  check_image("encode_png", image, 3);
  const int64_t channels = image.size(0), h = image.size(1), w = image.size(2);
  const uint8_t* p = image.data<uint8_t>();
  std::vector<uint8_t> rows(static_cast<size_t>(h * w * channels));
  uint8_t* out = rows.data();
  for (int64_t i = 0; i < h * w; ++i)
    for (int64_t c = 0; c < channels; ++c) *out++ = p[c * h * w + i];
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(w);
  png.height = static_cast<png_uint_32>(h);
  png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string file(size, '\0');
  if (!png_image_write_to_memory(&png, file.data(), &size, 0, rows.data(), 0, nullptr))
    throw Error(str("encode_png: ", png.message));
  file.resize(size);
  return file;
}

void write_png(const std::string& path, const Tensor& image) {
  write_file_atomic(path, encode_png(image));
}

Tensor image_grid(const Tensor& images, int64_t columns, int64_t gap) {
  check_image("image_grid", images, 4);
  const int64_t n = images.size(0), channels = images.size(1), h = images.size(2),
                w = images.size(3);
  if (columns <= 0) columns = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(n))));
  columns = std::min(columns, n);
  const int64_t rows = (n + columns - 1) / columns;
  const int64_t out_h = rows * h + (rows - 1) * gap, out_w = columns * w + (columns - 1) * gap;
  Tensor grid = Tensor::full({channels, out_h, out_w}, 255, DType::u8);
  const uint8_t* in = images.data<uint8_t>();
  uint8_t* out = grid.data<uint8_t>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < h; ++y)
        std::memcpy(
            out + (c * out_h + i / columns * (h + gap) + y) * out_w + i % columns * (w + gap),
            in + ((i * channels + c) * h + y) * w, static_cast<size_t>(w));
  return grid;
}

}  // namespace mtcki::data

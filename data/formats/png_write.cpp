#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/gzip.h"
#include "data/formats/image_file.h"

namespace mtcki::data {

namespace {

void put_u32(std::string* out, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) *out += static_cast<char>(v >> shift & 0xff);
}

void put_chunk(std::string* out, const std::string& type, const std::string& body) {
  put_u32(out, static_cast<uint32_t>(body.size()));
  const std::string checked = type + body;
  *out += checked;
  put_u32(out, crc32(checked.data(), checked.size()));
}

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
  std::vector<uint8_t> rows(static_cast<size_t>(h * (1 + w * channels)));
  uint8_t* out = rows.data();
  for (int64_t y = 0; y < h; ++y) {
    *out++ = 0;  // filter: none
    for (int64_t x = 0; x < w; ++x)
      for (int64_t c = 0; c < channels; ++c) *out++ = p[(c * h + y) * w + x];
  }
  std::string png("\x89PNG\r\n\x1a\n", 8), header;
  put_u32(&header, static_cast<uint32_t>(w));
  put_u32(&header, static_cast<uint32_t>(h));
  header += std::string{'\x08', static_cast<char>(channels == 1 ? 0 : 2), 0, 0, 0};
  put_chunk(&png, "IHDR", header);
  put_chunk(&png, "IDAT", zlib_compress(rows, 6));
  put_chunk(&png, "IEND", "");
  return png;
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

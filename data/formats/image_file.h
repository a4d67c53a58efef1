// Image files. Every image is u8 [C,H,W] with C = 1 (grey) or 3 (RGB).
#pragma once

#include <cstdint>
#include <string>

#include "data/formats/file_bytes.h"
#include "tensor/tensor.h"

namespace mtcki::data {

// PNG through libpng: 8-bit grey or RGB. image: u8 [C,H,W], C 1 or 3.
std::string encode_png(const Tensor& image);
void write_png(const std::string& path, const Tensor& image);  // atomic; DiskError
// images u8 [N,C,H,W] -> one u8 [C,H',W'] with `columns` per row (0: about square) and `gap` pixels of
// white between them.
Tensor image_grid(const Tensor& images, int64_t columns = 0, int64_t gap = 2);

// PNG through libpng: palette, grey, alpha (dropped, as PIL's convert("RGB") does) and 16 bits become 8-bit
// RGB, or grey when want_channels is 1 (ITU-R 601 luma as PIL: (19595 R + 38470 G + 7471 B + 32768) >> 16).
// JPEG through libjpeg-turbo with PIL's settings (ISLOW, fancy upsampling), so that pixels match.
// DataError: damaged, truncated, not such a file, absurd size.
Tensor decode_png(Bytes content, const std::string& file_name, int want_channels = 3);
Tensor decode_jpeg(Bytes content, const std::string& file_name, int want_channels = 3);
// By content, whatever the file's ending says.
Tensor decode_image(Bytes content, const std::string& file_name, int want_channels = 3);
Tensor read_image(const std::string& path, int want_channels = 3);

}  // namespace mtcki::data

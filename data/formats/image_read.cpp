// libpng and libjpeg report errors by longjmp. Each decoder keeps every object with a destructor
// outside the function that calls setjmp, so that no destructor is skipped.
// jpeglib.h uses size_t and FILE without including them, jerror.h needs jpeglib.h.
// clang-format off
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
#include <png.h>
// clang-format on

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <vector>

#include "data/formats/gzip.h"
#include "data/formats/image_file.h"

namespace mtcki::data {

namespace {

using namespace std::string_view_literals;

// What a decoder needs and leaves behind. Pixels are interleaved RGB.
struct Decoding {
  Bytes content;
  size_t at = 0;
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;
  char problem[256] = "";
  bool unsupported = false;  // whole, but of a kind that is not read
  jmp_buf jump;

  void say(const char* text) { std::snprintf(problem, sizeof problem, "%s", text); }
  // False when not even the best compression, `pixels_per_byte`, could give that size, or beyond
  // 2^26 pixels: no training image.
  bool accept_size(uint64_t w, uint64_t h, uint64_t pixels_per_byte) {
    width = static_cast<int64_t>(w);
    height = static_cast<int64_t>(h);
    if (w == 0 || h == 0 || w > 65535 || h > 65535 || w * h > (uint64_t{1} << 26) ||
        w * h > pixels_per_byte * content.size() + 1024) {
      std::snprintf(problem, sizeof problem, "a size of %llu x %llu in %zu bytes",
                    static_cast<unsigned long long>(w), static_cast<unsigned long long>(h),
                    content.size());
      return false;
    }
    return true;
  }
};

void png_fail(png_structp png, png_const_charp text) {
  auto* d = static_cast<Decoding*>(png_get_error_ptr(png));
  d->say(text);
  std::longjmp(d->jump, 1);
}
void png_ignore(png_structp, png_const_charp) {}

void png_feed(png_structp png, png_bytep out, size_t n) {
  auto* d = static_cast<Decoding*>(png_get_io_ptr(png));
  if (n > d->content.size() - d->at) png_error(png, "the end of the file");
  std::memcpy(out, d->content.data() + d->at, n);
  d->at += n;
}

// Room for the rows, made by a function without setjmp.
void make_room(Decoding* d) { d->pixels.assign(static_cast<size_t>(d->width * d->height * 3), 0); }

bool run_png(Decoding* d) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, png_fail, png_ignore);
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (!info || setjmp(d->jump)) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_read_fn(png, d, png_feed);
  png_set_user_limits(png, 65535, 65535);
  png_set_chunk_malloc_max(png, 1 << 20);
  // A CRC error is damage, also in chunks that do not matter.
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_read_info(png, info);
  // A row of 1-bit pixels packs eight into a byte, and deflate 1032 bytes into one.
  if (!d->accept_size(png_get_image_width(png, info), png_get_image_height(png, info), 8 * 1032))
    std::longjmp(d->jump, 1);
  const int bits = png_get_bit_depth(png, info), colour = png_get_color_type(png, info);
  const uint64_t row_bytes = png_get_rowbytes(png, info);
  if (row_bytes * static_cast<uint64_t>(d->height) > most_inflated(d->content.size()))
    png_error(png, "a size that its data cannot fill");
  if (bits == 16) png_set_strip_16(png);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && bits < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (!(colour & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);  // also what a palette with transparent entries expands to
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != static_cast<size_t>(d->width * 3))
    png_error(png, "an unexpected pixel format");
  make_room(d);
  for (int pass = 0; pass < passes; ++pass)
    for (int64_t y = 0; y < d->height; ++y)
      png_read_row(png, d->pixels.data() + y * d->width * 3, nullptr);
  png_read_end(png, nullptr);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

struct JpegErrors {
  jpeg_error_mgr base;
  Decoding* decoding;
};

void jpeg_fail(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  char text[JMSG_LENGTH_MAX];
  errors->base.format_message(info, text);
  errors->decoding->say(text);
  std::longjmp(errors->decoding->jump, 1);
}
// Level -1 is a warning. Corrupt data and a premature end count as damage here; oddities that leave
// the pixels whole do not.
void jpeg_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM) jpeg_fail(info);
}

bool run_jpeg(Decoding* d) {
  jpeg_decompress_struct info;
  std::memset(&info, 0, sizeof info);
  JpegErrors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_fail;
  errors.base.emit_message = jpeg_message;
  errors.decoding = d;
  if (setjmp(d->jump)) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, d->content.data(), static_cast<unsigned long>(d->content.size()));
  jpeg_read_header(&info, TRUE);
  // At least one bit per 8x8 block of the first component.
  if (!d->accept_size(info.image_width, info.image_height, 64 * 8)) std::longjmp(d->jump, 1);
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  if (info.arith_code || cmyk) {
    d->say(cmyk ? "CMYK colours" : "arithmetic coding");
    d->unsupported = true;
    std::longjmp(d->jump, 1);
  }
  info.out_color_space = JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&info);
  make_room(d);
  while (info.output_scanline < info.output_height) {
    // A progressive file can make the decoder walk it once per scan; that is capped here.
    if (info.input_scan_number > 500) {
      d->say("more than 500 scans");
      std::longjmp(d->jump, 1);
    }
    JSAMPROW row = d->pixels.data() + static_cast<int64_t>(info.output_scanline) * d->width * 3;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

Tensor to_tensor(const Decoding& d, int want_channels) {
  const int64_t plane = d.width * d.height;
  Tensor t = Tensor::empty({want_channels, d.height, d.width}, DType::u8);
  uint8_t* out = t.data<uint8_t>();
  const uint8_t* p = d.pixels.data();
  for (int64_t i = 0; i < plane; ++i, p += 3) {
    if (want_channels == 1) {
      out[i] = static_cast<uint8_t>((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
    } else {
      out[i] = p[0];
      out[plane + i] = p[1];
      out[2 * plane + i] = p[2];
    }
  }
  return t;
}

bool is_png(Bytes b) { return as_text(b).starts_with("\x89PNG\r\n\x1a\n"sv); }
bool is_jpeg(Bytes b) { return as_text(b).starts_with("\xff\xd8\xff"sv); }

Tensor decode(Bytes content, const std::string& name, const char* kind, bool (*run)(Decoding*),
              int want_channels) {
  if (want_channels != 1 && want_channels != 3)
    throw UsageError(str("images are read with 1 or 3 channels, not ", want_channels));
  Decoding d;
  d.content = content;
  if (!run(&d))
    throw_data_error(name, static_cast<int64_t>(d.at) > 0 ? static_cast<int64_t>(d.at) : -1,
                     str(d.unsupported ? "an ordinary " : "a whole ", kind, " image"), d.problem,
                     d.unsupported
                         ? "save it as an RGB image without arithmetic coding, or remove it"
                         : "the file is damaged or truncated: remove or replace it");
  return to_tensor(d, want_channels);
}

}  // namespace

Tensor decode_png(Bytes content, const std::string& name, int want_channels) {
  if (!is_png(content)) throw_data_error(name, 0, "a PNG image", describe_content(content));
  return decode(content, name, "PNG", run_png, want_channels);
}

Tensor decode_jpeg(Bytes content, const std::string& name, int want_channels) {
  if (!is_jpeg(content)) throw_data_error(name, 0, "a JPEG image", describe_content(content));
  return decode(content, name, "JPEG", run_jpeg, want_channels);
}

Tensor decode_image(Bytes content, const std::string& name, int want_channels) {
  if (is_png(content)) return decode_png(content, name, want_channels);
  if (is_jpeg(content)) return decode_jpeg(content, name, want_channels);
  throw_data_error(name, 0, "a PNG or JPEG image", describe_content(content));
}

Tensor read_image(const std::string& path, int want_channels) {
  const MappedFile file(path);
  return decode_image(file.bytes(), path, want_channels);
}

}  // namespace mtcki::data

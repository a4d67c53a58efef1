#include "data/formats/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

namespace mtcki::data {

namespace {

// An inflate state that ends with its scope.
struct Inflate {
  z_stream z{};
  explicit Inflate(int window_bits) {
    if (inflateInit2(&z, window_bits) != Z_OK) throw Error("zlib: cannot begin to inflate");
  }
  ~Inflate() { inflateEnd(&z); }
  Inflate(const Inflate&) = delete;
  Inflate& operator=(const Inflate&) = delete;
};

std::string reason(const z_stream& z, int code) {
  if (z.msg) return z.msg;
  return code == Z_BUF_ERROR || code == Z_OK ? "the end of the data" : str("zlib error ", code);
}

// One stream from the front of `in`, appended to `out`; returns the bytes consumed.
size_t inflate_stream(Bytes in, int window_bits, uint64_t limit, size_t base,
                      const std::string& file_name, std::vector<uint8_t>* out) {
  Inflate state(window_bits);
  z_stream& z = state.z;
  size_t fed = 0, filled = out->size();
  int code = Z_OK;
  while (code != Z_STREAM_END) {
    if (z.avail_in == 0 && fed < in.size()) {
      const size_t n = std::min<size_t>(in.size() - fed, size_t{1} << 30);
      z.next_in = const_cast<Bytef*>(in.data() + fed);
      z.avail_in = static_cast<uInt>(n);
      fed += n;
    }
    if (filled == out->size()) {
      // One byte beyond the limit tells "exactly full" from "too much".
      const uint64_t grown = std::max<uint64_t>(filled + filled / 2, 64 << 10);
      out->resize(static_cast<size_t>(std::min<uint64_t>(grown, limit + 1)));
    }
    if (filled > limit)
      throw_data_error(file_name, static_cast<int64_t>(base + fed - z.avail_in),
                       str("at most ", limit, " bytes of content"), "more",
                       "the file is damaged or of another kind");
    const size_t room = std::min<size_t>(out->size() - filled, size_t{1} << 30);
    z.next_out = out->data() + filled;
    z.avail_out = static_cast<uInt>(room);
    code = inflate(&z, Z_NO_FLUSH);
    filled += room - z.avail_out;
    const bool stuck = code == Z_BUF_ERROR && z.avail_in == 0 && fed == in.size();
    if ((code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) || stuck)
      throw_data_error(file_name, static_cast<int64_t>(base + fed - z.avail_in), "compressed data",
                       reason(z, code), "the file is truncated or damaged: fetch it again");
  }
  out->resize(filled);
  if (filled > limit)
    throw_data_error(file_name, -1, str("at most ", limit, " bytes of content"), str(filled));
  return fed - z.avail_in;
}

}  // namespace

bool is_gzip(Bytes content) {
  return content.size() >= 3 && content[0] == 0x1f && content[1] == 0x8b && content[2] == 8;
}

uint64_t most_inflated(uint64_t compressed_bytes) {
  return compressed_bytes > std::numeric_limits<uint64_t>::max() / 2048
             ? std::numeric_limits<uint64_t>::max()
             : compressed_bytes * 1032 + 1024;
}

std::vector<uint8_t> gunzip(Bytes content, const std::string& file_name, uint64_t limit) {
  std::vector<uint8_t> out;
  size_t at = 0;
  do {
    if (!is_gzip(content.subspan(at)))
      throw_data_error(file_name, static_cast<int64_t>(at), "a gzip member (1f 8b 08)",
                       describe_content(content.subspan(at)), "the file is damaged");
    at += inflate_stream(content.subspan(at), 15 + 16, limit, at, file_name, &out);
  } while (at < content.size());
  return out;
}

std::vector<uint8_t> gunzip_front(Bytes content, const std::string& file_name, size_t size) {
  std::vector<uint8_t> out(size);
  Inflate state(15 + 16);
  z_stream& z = state.z;
  z.next_in = const_cast<Bytef*>(content.data());
  z.avail_in = static_cast<uInt>(std::min<size_t>(content.size(), 1 << 20));
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(size);
  const int code = inflate(&z, Z_SYNC_FLUSH);
  if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
    throw_data_error(file_name, 0, "compressed data", reason(z, code),
                     "the file is truncated or damaged: fetch it again");
  out.resize(size - z.avail_out);
  return out;
}

std::vector<uint8_t> inflate_raw(Bytes content, uint64_t size, const std::string& file_name) {
  std::vector<uint8_t> out;
  const size_t used = inflate_stream(content, -15, size, 0, file_name, &out);
  if (used != content.size() || out.size() != size)
    throw_data_error(file_name, -1, str(size, " bytes in ", content.size(), " compressed ones"),
                     str(out.size(), " in ", used), "the archive is damaged");
  return out;
}

}  // namespace mtcki::data

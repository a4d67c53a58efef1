// Reading hostile files: a file mapped into memory, a cursor that checks every step, and the one
// form of error text: path, offset, expected, found, what to do.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "tensor/error.h"

namespace mtcki::data {

using Bytes = std::span<const uint8_t>;

inline std::string_view as_text(Bytes b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}
inline Bytes as_bytes(std::string_view s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

// DataError: `"path": at byte N: expected E, found F; next`. offset < 0: no offset. next may be
// empty.
[[noreturn]] void throw_data_error(const std::string& path, int64_t offset,
                                   const std::string& expected, const std::string& found,
                                   const std::string& next = "");
// What a file that is not the wanted one seems to be, from its first bytes: "a Git LFS pointer
// (...)", "an HTML page (...)", "a ZIP archive", ...; "" when nothing is recognised.
std::string recognise(Bytes content);
// recognise(), or the first bytes in hex.
std::string describe_content(Bytes content);

// A whole file, read-only. DataError when it is missing, not a regular file or unreadable.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  Bytes bytes() const { return bytes_; }

 private:
  std::string path_;
  Bytes bytes_;
};

// The same errors; f is called on consecutive pieces of the file.
void read_in_pieces(const std::string& path, const std::function<void(const uint8_t*, size_t)>& f);
// The content of a text; DataError also when it has more than `most` bytes.
std::string read_text(const std::string& path, uint64_t most = UINT64_MAX);
bool file_exists(const std::string& path);  // a regular file, symlinks followed

// True and the product when it fits into 63 bits and no factor is negative.
bool checked_multiply(int64_t a, int64_t b, int64_t* product);

// A cursor over bytes. Every read is bounded; running over the end is a DataError with the offset.
class ByteReader {
 public:
  ByteReader(Bytes content, std::string name, int64_t base = 0)
      : content_(content), name_(std::move(name)), base_(base) {}

  size_t left() const { return content_.size() - at_; }
  size_t position() const { return at_; }
  int64_t offset() const { return base_ + static_cast<int64_t>(at_); }
  const std::string& name() const { return name_; }
  Bytes content() const { return content_; }
  void seek(uint64_t position, const char* what);

  Bytes take(uint64_t n, const char* what);
  uint8_t u8(const char* what) { return take(1, what)[0]; }
  uint16_t u16(const char* what) { return little<uint16_t>(what); }
  uint32_t u32(const char* what) { return little<uint32_t>(what); }
  uint64_t u64(const char* what) { return little<uint64_t>(what); }
  uint32_t u32_big(const char* what) {
    const Bytes b = take(4, what);
    return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
  }
  // Up to the next newline, which is consumed and not returned.
  std::string_view line(const char* what);
  [[noreturn]] void fail(const std::string& expected, const std::string& found,
                         const std::string& next = "") const {
    throw_data_error(name_, offset(), expected, found, next);
  }

 private:
  template <class T>
  T little(const char* what) {
    const Bytes b = take(sizeof(T), what);
    T v = 0;
    for (size_t i = sizeof(T); i-- > 0;) v = static_cast<T>(v << 8 | b[i]);
    return v;
  }
  Bytes content_;
  std::string name_;
  int64_t base_;
  size_t at_ = 0;
};

}  // namespace mtcki::data

// Writing protocol-buffer messages by hand: the wire format only (varint, 64-bit, bytes, 32-bit).
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace mtcki::data {

class ProtoWriter {
 public:
  ProtoWriter& integer(int field, int64_t v) {
    return tag(field, 0).varint(static_cast<uint64_t>(v));
  }
  ProtoWriter& boolean(int field, bool v) { return integer(field, v ? 1 : 0); }
  ProtoWriter& real64(int field, double v) {
    return tag(field, 1).fixed(std::bit_cast<uint64_t>(v), 8);
  }
  ProtoWriter& real32(int field, float v) {
    return tag(field, 5).fixed(std::bit_cast<uint32_t>(v), 4);
  }
  ProtoWriter& text(int field, std::string_view v) {
    tag(field, 2).varint(v.size());
    bytes_ += v;
    return *this;
  }
  ProtoWriter& message(int field, const ProtoWriter& m) { return text(field, m.bytes_); }
  // Repeated varints or floats in one length-delimited field.
  ProtoWriter& varint(uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes_ += static_cast<char>(v | 0x80);
    bytes_ += static_cast<char>(v);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  ProtoWriter& tag(int field, int wire) {
    return varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire));
  }
  ProtoWriter& fixed(uint64_t v, int n) {
    for (int i = 0; i < n; ++i) bytes_ += static_cast<char>(v >> (8 * i) & 0xff);
    return *this;
  }
  std::string bytes_;
};

}  // namespace mtcki::data

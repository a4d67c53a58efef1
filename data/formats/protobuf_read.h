// Reading protocol-buffer messages: the wire format only, every step bounded by the message.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

// The fields of one message in file order; a nested message is another reader over bytes().
class ProtoReader {
 public:
  ProtoReader(Bytes content, const std::string& name, int64_t base = 0)
      : in_(content, name, base) {}

  // The next field, or false at the end. DataError: a cut or malformed field, a group.
  bool next() {
    if (in_.left() == 0) return false;
    const uint64_t tag = varint();
    field_ = static_cast<int64_t>(tag >> 3);
    wire_ = static_cast<int>(tag & 7);
    if (field_ == 0 || tag >> 3 > (1u << 29) - 1) fail("a field number");
    if (wire_ == 0) {
      integer_ = varint();
    } else if (wire_ == 1) {
      integer_ = in_.u64("a 64-bit field");
    } else if (wire_ == 5) {
      integer_ = in_.u32("a 32-bit field");
    } else if (wire_ == 2) {
      const uint64_t size = varint();
      if (size > in_.left()) fail("a field that ends inside its message");
      base_ = in_.offset();
      bytes_ = in_.take(size, "a field");
    } else {
      fail("a field of a known kind");
    }
    return true;
  }
  int64_t field() const { return field_; }
  int64_t integer() const {
    require(0, "an integer");
    return static_cast<int64_t>(integer_);
  }
  float real32() const {
    require(5, "a float");
    return std::bit_cast<float>(static_cast<uint32_t>(integer_));
  }
  Bytes bytes() const {
    require(2, "bytes");
    return bytes_;
  }
  std::string text() const { return std::string(as_text(bytes())); }
  ProtoReader message() const { return {bytes(), in_.name(), base_}; }
  // Repeated numbers: this field is one of them, or packs several.
  void integers(std::vector<int64_t>* out) const {
    if (wire_ != 2) return out->push_back(integer());
    for (ProtoReader packed = message(); packed.in_.left() > 0;)
      out->push_back(static_cast<int64_t>(packed.varint()));
  }
  void reals32(std::vector<float>* out) const {
    if (wire_ != 2) return out->push_back(real32());
    for (ProtoReader packed = message(); packed.in_.left() > 0;)
      out->push_back(std::bit_cast<float>(packed.in_.u32("a float")));
  }
  void reals64(std::vector<double>* out) const {
    if (wire_ == 1) return out->push_back(std::bit_cast<double>(integer_));
    for (ProtoReader packed = message(); packed.in_.left() > 0;)
      out->push_back(std::bit_cast<double>(packed.in_.u64("a double")));
  }
  [[noreturn]] void fail(const std::string& expected) const {
    in_.fail(expected, "something else", "the file is damaged or no ONNX model");
  }

 private:
  uint64_t varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = in_.u8("an integer");
      if (shift == 63 && byte > 1) break;
      v |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return v;
    }
    fail("an integer of at most 64 bits");
  }
  void require(int wire, const char* what) const {
    if (wire_ != wire) fail(str(what, " in field ", field_));
  }

  ByteReader in_;
  int64_t field_ = 0, base_ = 0;
  int wire_ = 0;
  uint64_t integer_ = 0;
  Bytes bytes_;
};

}  // namespace mtcki::data

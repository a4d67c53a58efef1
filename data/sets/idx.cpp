#include "data/sets/idx.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "data/formats/gzip.h"

namespace mtcki::data {

namespace {

// Type code -> bytes per element; 0: unknown.
int idx_item_size(uint8_t type) {
  switch (type) {
    case 0x08:
    case 0x09:
      return 1;
    case 0x0b:
      return 2;
    case 0x0c:
    case 0x0d:
      return 4;
    case 0x0e:
      return 8;
    default:
      return 0;
  }
}

uint64_t big_endian(const uint8_t* p, int bytes) {
  uint64_t v = 0;
  for (int i = 0; i < bytes; ++i) v = v << 8 | p[i];
  return v;
}

struct Header {
  uint8_t type = 0;
  Shape shape;
  int64_t bytes = 0;  // of the values
};

// Up to the values. `most`: bytes that they may come to.
Header parse_header(ByteReader& r, int64_t most) {
  const Bytes magic = r.take(4, "the idx header");
  Header h;
  h.type = magic[2];
  h.bytes = idx_item_size(h.type);
  const int rank = magic[3];
  if (magic[0] != 0 || magic[1] != 0 || h.bytes == 0 || rank < 1 || rank > Shape::kMaxRank)
    throw_data_error(r.name(), 0, "an idx file (00 00, type 08-0e, 1 to 8 dimensions)",
                     describe_content(r.content()));
  for (int i = 0; i < rank; ++i) {
    const int64_t d = r.u32_big("the idx sizes");
    h.shape.push_back(d);
    if (!checked_multiply(h.bytes, d, &h.bytes) || h.bytes > most)
      r.fail(most == kMostOfAny ? "sizes whose product is at most 2^60"
                                : str("sizes whose product is at most ", most, " bytes"),
             "larger ones", "the file is damaged or of another set");
  }
  return h;
}

Tensor parse_plain(Bytes content, const std::string& name, int64_t most) {
  ByteReader r(content, name);
  const Header h = parse_header(r, most);
  if (static_cast<uint64_t>(h.bytes) != r.left())
    r.fail(str(h.bytes, " bytes for shape ", h.shape.to_string()), str(r.left()),
           static_cast<uint64_t>(h.bytes) > r.left() ? "the file is truncated: fetch it again"
                                                     : "the file is damaged");
  const uint8_t* p = r.content().data() + r.position();
  const DType dtype = h.type == 0x08   ? DType::u8
                      : h.type == 0x0d ? DType::f32
                      : h.type == 0x0e ? DType::f64
                                       : DType::i32;
  Tensor t = Tensor::empty(h.shape, dtype);
  const int64_t n = t.numel();
  switch (h.type) {
    case 0x08:
      if (n > 0) std::memcpy(t.raw(), p, static_cast<size_t>(n));
      break;
    case 0x09:
      for (int64_t i = 0; i < n; ++i) t.data<int32_t>()[i] = static_cast<int8_t>(p[i]);
      break;
    case 0x0b:
      for (int64_t i = 0; i < n; ++i)
        t.data<int32_t>()[i] = static_cast<int16_t>(big_endian(p + 2 * i, 2));
      break;
    case 0x0c:
      for (int64_t i = 0; i < n; ++i)
        t.data<int32_t>()[i] = static_cast<int32_t>(big_endian(p + 4 * i, 4));
      break;
    case 0x0d:
      for (int64_t i = 0; i < n; ++i)
        t.data<float>()[i] = std::bit_cast<float>(static_cast<uint32_t>(big_endian(p + 4 * i, 4)));
      break;
    default:
      for (int64_t i = 0; i < n; ++i)
        t.data<double>()[i] = std::bit_cast<double>(big_endian(p + 8 * i, 8));
  }
  return t;
}

}  // namespace

Tensor parse_idx(Bytes content, const std::string& name, int64_t most) {
  if (!is_gzip(content)) return parse_plain(content, name, most);
  const std::string unpacked = name + " (unpacked)";
  // The header says how much there is to unpack.
  const std::vector<uint8_t> front = gunzip_front(content, name, 4 + 4 * Shape::kMaxRank);
  ByteReader r(front, unpacked);
  const Header h = parse_header(r, most);
  const uint64_t limit = std::min<uint64_t>(r.position() + static_cast<uint64_t>(h.bytes),
                                            most_inflated(content.size()));
  return parse_plain(gunzip(content, name, limit), unpacked, most);
}

Tensor read_idx(const std::string& path, int64_t most) {
  const MappedFile file(path);
  return parse_idx(file.bytes(), path, most);
}

}  // namespace mtcki::data

#include "data/checksum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "data/file_bytes.h"

namespace mtcki::data {

namespace {

// Eight tables: table[k][b] is the CRC of byte b followed by k zero bytes ("slicing by 8").
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables(uint32_t polynomial) {
  Tables t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ polynomial : c >> 1;
    t[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k)
    for (uint32_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xff];
  return t;
}

constexpr Tables kCrc32 = make_tables(0xEDB88320u);
constexpr Tables kCrc32c = make_tables(0x82F63B78u);

uint32_t run_crc(const Tables& t, const void* data, size_t bytes, uint32_t crc) {
  const auto* p = static_cast<const uint8_t*>(data);
  uint32_t c = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const uint32_t low =
        c ^ (uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24);
    c = t[7][low & 0xff] ^ t[6][(low >> 8) & 0xff] ^ t[5][(low >> 16) & 0xff] ^ t[4][low >> 24] ^
        t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
  }
  for (; bytes > 0; --bytes, ++p) c = (c >> 8) ^ t[0][(c ^ *p) & 0xff];
  return ~c;
}

constexpr int kShift[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};

std::array<uint32_t, 64> sine_table() {
  std::array<uint32_t, 64> t{};
  for (int i = 0; i < 64; ++i)
    t[i] = static_cast<uint32_t>(std::floor(std::fabs(std::sin(i + 1.0)) * 4294967296.0));
  return t;
}

}  // namespace

uint32_t crc32(const void* data, size_t bytes, uint32_t crc) {
  return run_crc(kCrc32, data, bytes, crc);
}

uint32_t crc32c(const void* data, size_t bytes, uint32_t crc) {
  return run_crc(kCrc32c, data, bytes, crc);
}

uint32_t adler32(const void* data, size_t bytes, uint32_t adler) {
  const auto* p = static_cast<const uint8_t*>(data);
  uint32_t a = adler & 0xffff, b = adler >> 16;
  while (bytes > 0) {
    const size_t n = std::min<size_t>(bytes, 5552);  // the longest run without overflow of b
    for (size_t i = 0; i < n; ++i) {
      a += p[i];
      b += a;
    }
    a %= 65521;
    b %= 65521;
    p += n;
    bytes -= n;
  }
  return b << 16 | a;
}

uint32_t crc32c_file(const std::string& path) {
  uint32_t crc = 0;
  read_in_pieces(path, [&crc](const uint8_t* p, size_t n) { crc = crc32c(p, n, crc); });
  return crc;
}

void Md5::block(const uint8_t* p) {
  static const std::array<uint32_t, 64> kSine = sine_table();
  uint32_t m[16];
  for (int i = 0; i < 16; ++i)
    m[i] = uint32_t{p[4 * i]} | uint32_t{p[4 * i + 1]} << 8 | uint32_t{p[4 * i + 2]} << 16 |
           uint32_t{p[4 * i + 3]} << 24;
  auto [a, b, c, d] = state_;
  for (int i = 0; i < 64; ++i) {
    uint32_t f;
    int g;
    if (i < 16) {
      f = (b & c) | (~b & d);
      g = i;
    } else if (i < 32) {
      f = (d & b) | (~d & c);
      g = (5 * i + 1) % 16;
    } else if (i < 48) {
      f = b ^ c ^ d;
      g = (3 * i + 5) % 16;
    } else {
      f = c ^ (b | ~d);
      g = (7 * i) % 16;
    }
    const uint32_t sum = a + f + kSine[static_cast<size_t>(i)] + m[g];
    a = d;
    d = c;
    c = b;
    b += std::rotl(sum, kShift[i / 16 * 4 + i % 4]);
  }
  state_[0] += a;
  state_[1] += b;
  state_[2] += c;
  state_[3] += d;
}

Md5& Md5::update(const void* data, size_t bytes) {
  const auto* p = static_cast<const uint8_t*>(data);
  bytes_ += bytes;
  while (bytes > 0) {
    if (filled_ == 0 && bytes >= 64) {
      block(p);
      p += 64;
      bytes -= 64;
      continue;
    }
    const size_t n = std::min(bytes, 64 - filled_);
    std::memcpy(pending_.data() + filled_, p, n);
    filled_ += n;
    p += n;
    bytes -= n;
    if (filled_ == 64) {
      block(pending_.data());
      filled_ = 0;
    }
  }
  return *this;
}

std::string Md5::hex() {
  const uint64_t bits = bytes_ * 8;
  const uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (filled_ != 56) update(&zero, 1);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (8 * i));
  update(length, 8);
  std::string out;
  for (const uint32_t word : state_)
    for (int byte = 0; byte < 4; ++byte) {
      const uint32_t v = word >> (8 * byte) & 0xff;
      out += "0123456789abcdef"[v >> 4];
      out += "0123456789abcdef"[v & 15];
    }
  return out;
}

std::string md5_hex(std::string_view text) { return Md5().update(text.data(), text.size()).hex(); }

std::string md5_file(const std::string& path) {
  Md5 md5;
  read_in_pieces(path, [&md5](const uint8_t* p, size_t n) { md5.update(p, n); });
  return md5.hex();
}

}  // namespace mtcki::data

// Digests of texts and files: MD5 (RFC 1321; identifies downloads whose publishers give one, not a
// protection against forgery) and SHA-256 (FIPS 180-4; identifies configurations and weight files).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mtcki::data {

// What both have in common: blocks of 64 bytes, then a one, zeros and the length in bits.
class BlockDigest {
 public:
  virtual ~BlockDigest() = default;
  void update(const void* data, size_t bytes);

 protected:
  virtual void block(const uint8_t* p) = 0;
  void finish(bool big_endian_length);

 private:
  std::array<uint8_t, 64> pending_{};
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

class Md5 : public BlockDigest {
 public:
  std::string hex();  // 32 lowercase digits; ends the computation

 private:
  void block(const uint8_t* p) override;
  std::array<uint32_t, 4> state_{0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
};

class Sha256 : public BlockDigest {
 public:
  std::string hex();  // 64 lowercase digits; ends the computation

 private:
  void block(const uint8_t* p) override;
  std::array<uint32_t, 8> state_{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
};

std::string md5_hex(std::string_view text);
std::string sha256_hex(std::string_view text);
// Of a file's content, read in pieces. DataError when it cannot be read.
std::string md5_file(const std::string& path);
std::string sha256_file(const std::string& path);

}  // namespace mtcki::data

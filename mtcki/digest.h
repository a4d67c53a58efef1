// SHA-256 (FIPS 180-4): identifies configurations and weight files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mtcki {

class Sha256 {
 public:
  Sha256& update(const void* data, size_t bytes);
  std::string hex();  // 64 lowercase digits; ends the computation

 private:
  void block(const uint8_t* p);
  std::array<uint32_t, 8> state_{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  std::array<uint8_t, 64> pending_{};
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

std::string sha256_hex(std::string_view text);
// Of a file's content, read in pieces. DataError when it cannot be read.
std::string sha256_file(const std::string& path);

}  // namespace mtcki

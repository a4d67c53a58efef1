// Digests by OpenSSL's libcrypto: SHA-256 identifies configurations and weight files, MD5 the
// downloads whose publishers give one (no protection against forgery).
#pragma once

#include <string>
#include <string_view>

namespace mtcki::data {

// In lowercase hexadecimal digits.
std::string sha256_hex(std::string_view text);
// Of a file's content, read in pieces. DataError when it cannot be read.
std::string sha256_file(const std::string& path);
std::string md5_file(const std::string& path);

}  // namespace mtcki::data

#include "data/sets/digest.h"

#include <openssl/evp.h>

#include <memory>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

namespace {

class Digest {
 public:
  explicit Digest(const EVP_MD* kind) { check(EVP_DigestInit_ex(state_.get(), kind, nullptr)); }
  void update(const void* data, size_t bytes) {
    check(EVP_DigestUpdate(state_.get(), data, bytes));
  }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    check(EVP_DigestFinal_ex(state_.get(), digest, &size));
    std::string out;
    for (unsigned i = 0; i < size; ++i)
      for (const int shift : {4, 0}) out += "0123456789abcdef"[digest[i] >> shift & 15];
    return out;
  }

 private:
  static void check(int done) {
    if (done != 1) throw Error("libcrypto: this digest cannot be computed here");
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state_{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

std::string digest_of_file(const EVP_MD* kind, const std::string& path) {
  Digest digest(kind);
  read_in_pieces(path, [&digest](const uint8_t* p, size_t n) { digest.update(p, n); });
  return digest.hex();
}

}  // namespace

std::string sha256_hex(std::string_view text) {
  Digest digest(EVP_sha256());
  digest.update(text.data(), text.size());
  return digest.hex();
}

std::string sha256_file(const std::string& path) { return digest_of_file(EVP_sha256(), path); }
std::string md5_file(const std::string& path) { return digest_of_file(EVP_md5(), path); }

}  // namespace mtcki::data

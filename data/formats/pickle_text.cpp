#include "data/formats/pickle_text.h"

#include <cstdint>

namespace mtcki::data {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// `n` hex digits at `at`; -1: there are not as many.
int64_t hex_number(std::string_view s, size_t at, size_t n) {
  if (at + n > s.size()) return -1;
  int64_t v = 0;
  for (size_t i = at; i < at + n; ++i) {
    const int digit = hex_digit(s[i]);
    if (digit < 0) return -1;
    v = v * 16 + digit;
  }
  return v;
}

void append_utf8(std::string* out, uint32_t c) {
  const auto put = [out](uint32_t byte) { *out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xc0 | c >> 6);
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
  } else {
    put(0xf0 | (c >> 18 & 7));
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
  }
  put(0x80 | (c & 0x3f));
}

}  // namespace

std::string unescaped_bytes(std::string_view s) {
  if (s.size() >= 2 && (s[0] == '\'' || s[0] == '"') && s.back() == s[0])
    s = s.substr(1, s.size() - 2);
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    const char next = s[i] == '\\' && i + 1 < s.size() ? s[i + 1] : '\0';
    const int64_t code = next == 'x' ? hex_number(s, i + 2, 2) : -1;
    if (code >= 0) {
      out += static_cast<char>(code);
      i += 3;
    } else if (next == 'n' || next == 't' || next == 'r') {
      out += next == 'n' ? '\n' : next == 't' ? '\t' : '\r';
      ++i;
    } else if (next == '\\' || next == '\'' || next == '"') {
      out += next;
      ++i;
    } else {
      out += s[i];
    }
  }
  return out;
}

std::string unescaped_unicode(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    const char next = s[i] == '\\' && i + 1 < s.size() ? s[i + 1] : '\0';
    const size_t digits = next == 'u' ? 4 : next == 'U' ? 8 : 0;
    const int64_t code = digits ? hex_number(s, i + 2, digits) : -1;
    if (code >= 0 && code < 0x110000) {
      append_utf8(&out, static_cast<uint32_t>(code));
      i += 1 + digits;
    } else {
      append_utf8(&out, static_cast<unsigned char>(s[i]));
    }
  }
  return out;
}

std::string latin1(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    const auto c = static_cast<unsigned char>(s[i]);
    if (c < 0x80) {
      out += s[i];
    } else if ((c & 0xfc) == 0xc0 && i + 1 < s.size()) {  // U+0080 to U+00FF take two bytes
      out += static_cast<char>((c & 3) << 6 | (s[++i] & 0x3f));
    } else if (c >= 0xc0) {
      out += '?';
    }
  }
  return out;
}

}  // namespace mtcki::data

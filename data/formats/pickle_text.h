// The spellings of texts in pickles: escapes of protocol 0, and bytes as Latin-1.
#pragma once

#include <string>
#include <string_view>

namespace mtcki::data {

// A quoted Python string literal without its quotes and escapes (\n \t \\ \' \" \xhh); other
// escapes stay.
std::string unescaped_bytes(std::string_view quoted);
// Python's raw-unicode-escape: Latin-1, with \uXXXX and \UXXXXXXXX; the result is UTF-8.
std::string unescaped_unicode(std::string_view text);
// UTF-8 whose characters are below 256, one byte each; others become '?'.
std::string latin1(std::string_view utf8);

}  // namespace mtcki::data

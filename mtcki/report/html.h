// Pieces of the pages that the program writes.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// Control characters, which HTML does not allow, become U+FFFD.
std::string html_escape(const std::string& text);
std::string base64(const std::string& bytes);

// <tr> of cells that are HTML; those from `text_columns` on are numbers, aligned right. tag: td or
// th.
std::string html_row(const std::vector<std::string>& cells, const char* tag, size_t text_columns);
// In a box of its own: on a narrow screen the table scrolls, not the page.
std::string html_table(const std::string& rows);
std::string html_details(const std::string& summary, const std::string& body);

// A picture inside the page: PNG bytes, or u8 [C,H,W]. alt is HTML.
std::string html_png(const std::string& png, const std::string& alt);
std::string html_image(const Tensor& image, const std::string& alt);

}  // namespace mtcki

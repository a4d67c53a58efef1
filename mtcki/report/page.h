// The frame of every page that the program writes: one file, inline style, no script, no external
// address; light and dark.
#pragma once

#include <cstdint>
#include <string>

namespace mtcki {

// title: text; body: HTML. refresh_seconds > 0: the page reloads itself.
std::string html_page(const std::string& title, const std::string& body,
                      int64_t refresh_seconds = 0);

}  // namespace mtcki

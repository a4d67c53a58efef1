#include "mtcki/report/page.h"

#include <fmt/format.h>

#include "mtcki/report/html.h"

namespace mtcki {

extern const char kReportStyle[];  // report.css, embedded by CMakeLists.txt

std::string html_page(const std::string& title, const std::string& body, int64_t refresh_seconds) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n";
  if (refresh_seconds > 0)
    out += fmt::format("<meta http-equiv=\"refresh\" content=\"{}\">\n", refresh_seconds);
  return out + "<title>" + html_escape(title) + " – mtcki</title>\n<style>\n" + kReportStyle +
         "</style>\n</head>\n<body>\n<h1>" + html_escape(title) + "</h1>\n" + body +
         "</body>\n</html>\n";
}

}  // namespace mtcki

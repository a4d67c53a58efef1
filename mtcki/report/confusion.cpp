#include "mtcki/report/confusion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <tuple>
#include <vector>

#include "mtcki/evaluation/confusion.h"
#include "mtcki/report/html.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kMostCells = 20;  // classes of a matrix that is shown as a table

std::string class_name(const ConfusionMatrix& m, int64_t k) {
  return m.class_names.empty() ? std::to_string(k)
                               : html_escape(m.class_names[static_cast<size_t>(k)]);
}

double share(const ConfusionMatrix& m, int64_t truth, int64_t predicted) {
  const int64_t n = m.of_class(truth);
  return n > 0 ? static_cast<double>(m.at(truth, predicted)) / static_cast<double>(n) : 0;
}

// Square root, so that a few percent are seen.
double intensity(double share) { return std::sqrt(share); }

// "Shirt taken for T-shirt/top (15.2 %)", most frequent first.
std::vector<std::string> worst(const ConfusionMatrix& m, size_t most) {
  std::vector<std::tuple<double, int64_t, int64_t>> pairs;
  for (int64_t i = 0, k = m.classes(); i < k; ++i)
    for (int64_t j = 0; j < k; ++j)
      if (i != j && m.at(i, j) > 0) pairs.emplace_back(-share(m, i, j), i, j);
  std::ranges::sort(pairs);
  if (pairs.size() > most) pairs.resize(most);
  std::vector<std::string> out;
  for (const auto& [negative, i, j] : pairs)
    out.push_back(fmt::format("{} taken for {} ({:.1f} %)", class_name(m, i), class_name(m, j),
                              -100 * negative));
  return out;
}

std::string table(const ConfusionMatrix& m) {
  const int64_t k = m.classes();
  std::string out = "<tr><td></td>";
  for (int64_t j = 0; j < k; ++j)
    out += "<th scope=\"col\"><span>" + class_name(m, j) + "</span></th>";
  out += "</tr>\n";
  for (int64_t i = 0; i < k; ++i) {
    out += "<tr><th scope=\"row\">" + class_name(m, i) + "</th>";
    for (int64_t j = 0; j < k; ++j) {
      const double s = share(m, i, j), a = intensity(s);
      if (s < 0.005) {
        out += "<td></td>";
        continue;
      }
      const char* kind = i != j ? "x" : a > 0.88 ? "d h" : "d";
      out += fmt::format("<td class=\"{}\" style=\"--a:{:.2f}\">{:.0f}</td>", kind, a,
                         std::floor(100 * s + 0.5));
    }
    out += "</tr>\n";
  }
  return out;
}

// One pixel per cell on white: blue on the diagonal, orange beside it.
std::string picture(const ConfusionMatrix& m, const std::string& alt) {
  const int64_t k = m.classes();
  Tensor image = Tensor::empty({3, k, k}, DType::u8);
  uint8_t* p = image.data<uint8_t>();
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const double a = intensity(share(m, i, j));
      const double colour[3] = {i == j ? 0.0 : 213.0, i == j ? 114.0 : 94.0, i == j ? 178.0 : 0.0};
      for (int64_t c = 0; c < 3; ++c)
        p[(c * k + i) * k + j] = static_cast<uint8_t>(255 + a * (colour[c] - 255) + 0.5);
    }
  return html_image(image, alt) + "\n";
}

std::string confusion_figure(const std::string& kind, const std::string& name,
                             const ConfusionMatrix& m) {
  const double percent = 100.0 * static_cast<double>(m.correct()) /
                         static_cast<double>(std::max<int64_t>(1, m.total()));
  const bool small = m.classes() <= kMostCells;
  const std::vector<std::string> pairs = worst(m, small ? 3 : 15);
  std::string out = fmt::format(
      "<figure class=\"cm\"><figcaption>{} {} <small>{}, {:.2f} % of {} test images</small>"
      "</figcaption>\n",
      kind, html_escape(name), html_escape(m.model), percent, m.total());
  if (small) {
    out += html_table(table(m));
  } else {
    out += picture(m, fmt::format("Confusion matrix of {} {}: {} classes, {:.2f} % on the diagonal",
                                  kind, html_escape(name), m.classes(), percent));
  }
  if (!pairs.empty()) {
    out += "<small>most often: ";
    for (size_t i = 0; i < pairs.size(); ++i) out += (i > 0 ? "; " : "") + pairs[i];
    out += "</small>";
  }
  return out + "</figure>\n";
}

}  // namespace

std::string confusion_section(const std::string& folder, size_t bytes) {
  std::string figures;
  int left_out = 0;
  for (const char* kind : {"student", "teacher"}) {
    std::vector<fs::path> dirs;
    std::error_code ec;
    for (const auto& entry :
         fs::directory_iterator(fs::path(folder) / (kind + std::string("s")), ec))
      dirs.push_back(entry.path());
    std::ranges::sort(dirs);
    for (const fs::path& dir : dirs) {
      const auto matrix = read_confusion(dir.string());
      if (!matrix) continue;
      const std::string one = confusion_figure(kind, dir.filename().string(), *matrix);
      if (figures.size() + one.size() > bytes)
        ++left_out;
      else
        figures += one;
    }
  }
  if (figures.empty()) return "";
  std::string out =
      "<p class=\"soft\">Row: the true class; column: what the network takes it for; percent of "
      "the "
      "row.</p>\n<div class=\"grid2\">\n" +
      figures + "</div>\n";
  if (left_out > 0)
    out += fmt::format("<p class=\"soft\">{} more are in the run folder (confusion.json)</p>\n",
                       left_out);
  return out;
}

}  // namespace mtcki

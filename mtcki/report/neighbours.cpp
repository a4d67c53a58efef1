#include "mtcki/report/neighbours.h"

#include <fmt/format.h>

#include "mtcki/evaluation/neighbours.h"
#include "mtcki/report/html.h"

namespace mtcki {

namespace {

std::string cell(const Tensor& images, int64_t row, const std::string& alt,
                 const std::string& caption) {
  const Tensor one = images.slice(row, row + 1);
  return "<div>" + html_image(one.reshape({one.size(1), one.size(2), one.size(3)}), alt) +
         "<small>" + caption + "</small></div>";
}

}  // namespace

std::string neighbours_section(const std::string& folder, size_t bytes) {
  const auto n = read_neighbours(folder + "/metrics/neighbours.safetensors");
  if (!n) return "";
  const auto name = [&n](int64_t label) {
    const bool known = label >= 0 && label < std::ssize(n->class_names);
    return known ? html_escape(n->class_names[static_cast<size_t>(label)]) : std::to_string(label);
  };
  std::string figures;
  for (int64_t s = 0; s < n->size(); ++s) {
    const std::string wanted = name(n->labels[static_cast<size_t>(s)]);
    std::string one =
        "<figure class=\"nn\">" +
        cell(n->images, s, "Synthetic image, made as " + wanted, "<b>synthetic</b><br>" + wanted);
    for (int64_t i = s * n->count(); i < (s + 1) * n->count(); ++i) {
      const auto at = static_cast<size_t>(i);
      const std::string label = name(n->real_labels[at]);
      one += cell(n->real, i, fmt::format("Real training image {}, {}", n->real_rows[at], label),
                  fmt::format("{:.3g}<br>{}", n->distances[at], label));
    }
    one += "</figure>\n";
    if (figures.size() + one.size() > bytes) break;
    figures += one;
  }
  if (figures.empty()) return "";
  return fmt::format(
             "<p class=\"soft\">Each card: a synthetic image (left) with its intended class, then "
             "the {} most similar of {} real training images with their distance ({}). Real data "
             "is used for this display only: neither the images nor the students have seen it. For "
             "comparison: a real test image is {:.3g} from its nearest training image (median of "
             "{}).</p>\n"
             "<div class=\"grid2\">\n",
             n->count(), n->searched, html_escape(n->space), n->usual_distance, n->size()) +
         figures + "</div>\n";
}

}  // namespace mtcki

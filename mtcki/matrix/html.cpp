// table.html of a matrix.
#include "mtcki/report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "data/formats/image_file.h"
#include "mtcki/host/console.h"
#include "mtcki/matrix/significance.h"
#include "mtcki/matrix/table.h"
#include "mtcki/report/chart.h"
#include "mtcki/report/page.h"
#include "mtcki/synthesis/image_pool.h"
#include "tensor/error.h"
#include "tensor/ops/index.h"

namespace mtcki {

using nlohmann::json;

namespace {

constexpr int64_t kMostClasses = 10, kImagesOfAClass = 4;
constexpr size_t kImageBytes = 4'000'000;

std::string table_section(const MatrixTable& t) {
  const auto line = [&t](std::vector<std::string> cells, const char* tag) {
    for (std::string& cell : cells) cell = html_escape(cell);
    return html_row(cells, tag, t.text_columns);
  };
  std::string out = line(t.head, "th");
  for (const auto& row : t.rows) out += line(row, "td");
  out = html_table(out);
  for (const std::string& note : t.notes)
    out += "<p class=\"bad\">" + html_escape(console::printable(note)) + "</p>\n";
  return out +
         "<p class=\"soft\">Mean ± deviation over the seeds: top-1 in percent at the last step, "
         "and "
         "at the best test. Differences are paired by seed; p is that of the two-sided paired "
         "t-test. MACs: all passes of the whole job but the teachers' training.</p>\n";
}

// One chart per student, teacher set and data: a line per method, its tests over what the images and
// this student, not the others, had cost by then.
std::string curves_section(const json& record, const MatrixTable& t) {
  std::map<std::string, std::vector<Series>> charts;
  for (const MatrixTable::Line& line : t.lines) {
    std::vector<std::vector<double>> x, y;  // by test, of all seeds
    for (const size_t i : line.cells)
      for (const json& s : record.at("cells")[i].at("students")) {
        if (s.at("student") != line.student || !s.contains("curve")) continue;
        const json& curve = s["curve"];
        x.resize(std::max(x.size(), curve.size()));
        y.resize(x.size());
        for (size_t k = 0; k < curve.size(); ++k) {
          x[k].push_back(curve[k].at(0).get<double>() / 1e9);
          y[k].push_back(curve[k].at(1));
        }
      }
    Series series{line.method, {}};
    for (size_t k = 0; k < x.size(); ++k) series.points.emplace_back(mean(x[k]), mean(y[k]));
    std::string title = line.student + ": test top-1 %";
    for (const std::string& part : {line.teachers, line.data})
      if (!part.empty()) title += ", " + part;
    if (!series.points.empty()) charts[title].push_back(series);
  }
  std::string out;
  for (const auto& [title, series] : charts)
    out +=
        line_chart(series, {.title = title,
                            .x_label = "10^9 multiply-accumulates of the images and this student",
                            .allow_log = false,
                            .markers = true});
  return out.empty()
             ? ""
             : "<h2>Accuracy over counted cost</h2>\n<div class=\"grid2\">\n" + out + "</div>\n";
}

// Images of a class from early ones to late ones, evenly, as one picture; empty when there are none.
// The first ones alone would show a generator before it has learned.
std::string picture(const data::ImageSet& set, int64_t label) {
  std::vector<int64_t> all, rows;
  const auto* labels = set.labels.data<int64_t>();
  for (int64_t i = 0; i < set.size(); ++i)
    if (labels[i] == label) all.push_back(i);
  if (all.empty()) return "";
  const auto count = std::ssize(all), n = std::min(count, kImagesOfAClass);
  for (int64_t i = 0; i < n; ++i)
    rows.push_back(all[static_cast<size_t>(n == 1 ? 0 : i * (count - 1) / (n - 1))]);
  return html_image(
      data::image_grid(index_select(set.images, Tensor::from(rows, {n})), kImagesOfAClass / 2),
      html_escape(set.class_names[static_cast<size_t>(label)]));
}

// A line of pictures for each method: of its first finished cell.
std::string images_section(const json& record, const std::string& folder) {
  std::string rows, head;
  std::vector<std::string> seen;
  for (const json& cell : record.at("cells")) {
    std::string name = cell.at("method");
    for (const char* part : {"teachers", "data"})
      if (cell.at(part) != "") name += ", " + cell.at(part).get<std::string>();
    if (!cell.contains("images") || std::ranges::count(seen, name) > 0) continue;
    seen.push_back(name);
    const std::string dir = folder + "/cells/" + cell.at("cell").get<std::string>() + "/synth";
    try {
      const data::ImageSet set = ImagePool::open(dir).load();
      const int64_t classes = std::min(set.num_classes(), kMostClasses);
      std::vector<std::string> line = {html_escape(name)}, titles = {""};
      for (int64_t k = 0; k < classes; ++k) {
        titles.push_back(html_escape(set.class_names[static_cast<size_t>(k)]));
        line.push_back(picture(set, k));
      }
      const std::string row = html_row(line, "td", line.size());
      if (head.empty()) head = html_row(titles, "th", titles.size());
      if (rows.size() + row.size() > kImageBytes) break;
      rows += row;
    } catch (const DataError&) {
      // A record can be shown where its runs are not.
    }
  }
  return rows.empty() ? ""
                      : "<h2>What the students learned from</h2>\n<p class=\"soft\">From early "
                        "batches of a set to late ones.</p>\n" +
                            html_table(head + rows);
}

}  // namespace

std::string matrix_html(const json& record, const std::string& folder) {
  const MatrixTable t = summarise(record);
  std::string where;
  if (record.contains("machine"))
    where = fmt::format(
        "{}, {} threads, version {}, {}", record["machine"].value("cpu", "unknown machine"),
        record["machine"].value("threads", 0), record.value("git", ""), record.value("date", ""));
  return html_page(record.at("matrix"), "<p class=\"soft\">" + html_escape(where) + "</p>\n" +
                                            table_section(t) + curves_section(record, t) +
                                            (folder.empty() ? "" : images_section(record, folder)));
}

}  // namespace mtcki

// What a student's accuracy is to be compared with: chance, the same network trained on real
// images, the best teacher; and where it is lost, class by class.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "mtcki/evaluation/confusion.h"
#include "mtcki/report/html.h"
#include "mtcki/report/sections.h"

namespace mtcki {

using nlohmann::json;

namespace {

constexpr size_t kClassRows = 20;      // all of them; of more those that lost most
constexpr size_t kStudentColumns = 4;  // columns

struct Network {
  std::string name, model;
  double top1;
  std::optional<ConfusionMatrix> confusion;
};

// With an accuracy; the best first.
std::vector<Network> networks(const Run& r, const char* kind) {
  std::vector<Network> out;
  for (const json& j : list_of(r.result, kind))
    if (j.is_object() && !std::isnan(number_of(j, "top1")))
      out.push_back({text_of(j, "name"), text_of(j, "model"), number_of(j, "top1"), {}});
  std::ranges::stable_sort(out, std::greater(), &Network::top1);
  for (Network& n : out)  // names are those of folders, unless the file was changed by hand
    if (n.name.find('/') == std::string::npos)
      n.confusion = read_confusion(r.folder + "/" + kind + "/" + n.name);
  return out;
}

std::string difference(double points, int digits) {
  if (std::abs(points) < 0.5 * std::pow(10, -digits)) return fmt::format("{:.{}f}", 0.0, digits);
  return fmt::format("<span class=\"{}\">{:+.{}f}</span>", points < 0 ? "bad" : "good", points,
                     digits);
}

std::string overall(const Run& r, const std::vector<Network>& teachers,
                    const std::vector<Network>& students) {
  std::string rows;
  for (const Network& s : students) {
    const auto real = std::ranges::find(teachers, s.model, &Network::model);
    const bool same = real != teachers.end();
    rows += html_row(
        {html_escape(s.name), fmt::format("<b>{:.2f}</b>", s.top1),
         same ? fmt::format("{:.2f}", real->top1) : "–",
         same ? difference(s.top1 - real->top1, 2) : "–", fmt::format("{:.2f}", teachers[0].top1),
         difference(s.top1 - teachers[0].top1, 2),
         r.classes() > 0 ? fmt::format("{:.2f}", 100.0 / static_cast<double>(r.classes())) : "–",
         html_escape(s.model)},
        "td", 1);
  }
  return html_table(html_row({"student", "top-1 %", "on real images %", "points", "best teacher %",
                              "points", "chance %", "model"},
                             "th", 1) +
                    rows) +
         "<p class=\"soft\">On real images: the teacher of the same model, which was trained on "
         "them; points: what the student has more.</p>\n";
}

double class_accuracy(const ConfusionMatrix& m, int64_t k) {
  return m.of_class(k) > 0
             ? 100.0 * static_cast<double>(m.at(k, k)) / static_cast<double>(m.of_class(k))
             : 0;
}

std::string by_class(const Network& teacher, std::vector<Network> students) {
  if (!teacher.confusion) return "";
  const int64_t classes = teacher.confusion->classes();
  std::erase_if(students, [&](const Network& s) {
    return !s.confusion || s.confusion->classes() != classes;
  });
  if (students.empty()) return "";
  if (students.size() > kStudentColumns) students.resize(kStudentColumns);
  struct Row {
    double lost;
    std::string html;
  };
  std::vector<Row> rows;
  for (int64_t k = 0; k < classes; ++k) {
    const double real = class_accuracy(*teacher.confusion, k);
    const double lost = real - class_accuracy(*students[0].confusion, k);
    const auto& names = teacher.confusion->class_names;
    std::vector<std::string> cells{
        names.empty() ? std::to_string(k) : html_escape(names[static_cast<size_t>(k)]),
        fmt::format("{:.1f}", real)};
    for (const Network& s : students)
      cells.push_back(fmt::format("{:.1f}", class_accuracy(*s.confusion, k)));
    cells.insert(cells.begin() + 3, difference(-lost, 1));
    rows.push_back({lost, html_row(cells, "td", 1)});
  }
  std::ranges::stable_sort(rows, std::greater(), &Row::lost);
  const bool all = rows.size() <= kClassRows;
  if (!all) rows.resize(kClassRows);
  std::vector<std::string> head{"class", html_escape(teacher.name) + " (teacher)"};
  for (const Network& s : students) head.push_back(html_escape(s.name));
  head.insert(head.begin() + 3, "points");
  std::string table = html_row(head, "th", 1);
  for (const Row& row : rows) table += row.html;
  return fmt::format(
             "<h3>By class</h3>\n<p class=\"soft\">Percent of the class's test images that "
             "are put into it; {}</p>\n",
             all ? "what lost most comes first."
                 : fmt::format("the {} of {} classes that lost most.", kClassRows, classes)) +
         html_table(table);
}

}  // namespace

std::string baselines_section(const Run& r) {
  const std::vector<Network> teachers = networks(r, "teachers"), students = networks(r, "students");
  if (teachers.empty() || students.empty()) return "";
  return overall(r, teachers, students) + by_class(teachers[0], students);
}

}  // namespace mtcki

#include "mtcki/matrix/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/formats/atomic_file.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/matrix/record.h"
#include "mtcki/matrix/significance.h"
#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

using nlohmann::json;

namespace {

using Line = MatrixTable::Line;

std::string mean_text(const std::vector<double>& values) {
  if (values.empty()) return "";
  const double d = deviation(values);
  return fmt::format("{:.2f}", mean(values)) + (std::isnan(d) ? "" : fmt::format(" ± {:.2f}", d));
}

// 1.5e12 -> "1.5 T"
std::string scaled(double v) {
  const std::pair<double, const char*> units[] = {{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}};
  for (const auto& [unit, letter] : units)
    if (v >= unit) return fmt::format("{:.3g} {}", v / unit, letter);
  return fmt::format("{:.6g}", v);
}

std::string measure(double v) { return fmt::format("{:.3g}", v); }
std::string memory(double v) { return human_bytes(static_cast<size_t>(v)); }

// Columns of numbers that belong to a cell: where they stand in it, and how their mean is written.
struct Measure {
  const char *title, *pointer;
  std::string (*text)(double);
};
const Measure kMeasures[] = {{"images", "/images", scaled},
                             {"generator steps", "/metrics/generator_steps", scaled},
                             {"MACs", "/macs", scaled},
                             {"synthesis", "/seconds/synthesis", duration_text},
                             {"students", "/seconds/students", duration_text},
                             {"memory", "/metrics/peak_memory_bytes", memory},
                             {"FID-C", "/metrics/fid_c", measure},
                             {"IS-C", "/metrics/is_c", measure},
                             {"labels %", "/metrics/label_accuracy", measure},
                             {"diversity", "/metrics/diversity", measure},
                             {"coverage %", "/metrics/class_coverage", measure}};

const json* student_of(const json& cell, const std::string& name) {
  if (cell.contains("students"))
    for (const json& s : cell["students"])
      if (s.at("student") == name) return &s;
  return nullptr;
}

std::vector<Line> lines_of(const json& record) {
  std::vector<Line> lines;
  const json& cells = record.at("cells");
  for (size_t i = 0; i < cells.size(); ++i) {
    if (!cells[i].contains("students")) continue;
    for (const json& s : cells[i]["students"]) {
      const Line one{.method = cells[i].at("method"),
                     .teachers = cells[i].at("teachers"),
                     .data = cells[i].at("data"),
                     .student = s.at("student")};
      auto at = std::ranges::find_if(lines, [&](const Line& l) { return l.is(one.method, one); });
      if (at == lines.end()) at = lines.insert(lines.end(), one);
      at->cells.push_back(i);
      at->top1.push_back(s.at("top1"));
    }
  }
  return lines;
}

// Of one line against the same of another method: "+0.89 (p 0.012)".
std::string against_text(const json& cells, const Line& line, const std::vector<Line>& lines,
                         const std::string& method) {
  if (line.method == method) return "";
  for (const Line& other : lines) {
    if (!other.is(method, line)) continue;
    std::vector<double> a, b;
    for (size_t i = 0; i < line.cells.size(); ++i)
      for (size_t k = 0; k < other.cells.size(); ++k)
        if (cells[line.cells[i]].at("seed") == cells[other.cells[k]].at("seed"))
          a.push_back(line.top1[i]), b.push_back(other.top1[k]);
    if (a.empty()) return "";
    const PairedTest t = paired_t_test(a, b);
    const double shown = std::round(t.difference * 100) / 100 + 0.0;  // -0 becomes +0
    return fmt::format("{:+.2f}", shown) + (std::isnan(t.p) ? "" : fmt::format(" (p {:.2g})", t.p));
  }
  return "";
}

std::string published_text(const json& record, const Line& line) {
  std::string out;
  for (const json& p : record.at("published"))
    if (p.at("method") == line.method && p.at("student") == line.student &&
        (p.at("teachers") == "" || p.at("teachers") == line.teachers) &&
        (p.at("data") == "" || p.at("data") == line.data))
      out += fmt::format("{}{:.2f} ({})", out.empty() ? "" : ", ", p.at("top1").get<double>(),
                         p.at("mark").get<std::string>());
  return out;
}

// Columns that no line fills are left out.
void drop_empty_columns(MatrixTable* t) {
  for (size_t c = t->head.size(); c-- > 0;) {
    if (std::ranges::any_of(t->rows, [c](const auto& r) { return !r[c].empty(); })) continue;
    const auto at = static_cast<std::ptrdiff_t>(c);
    t->head.erase(t->head.begin() + at);
    for (auto& row : t->rows) row.erase(row.begin() + at);
    if (c < t->text_columns) --t->text_columns;
  }
}

size_t columns_of(const std::string& s) {  // of UTF-8
  return static_cast<size_t>(std::ranges::count_if(s, [](char c) { return (c & 0xC0) != 0x80; }));
}

// Markdown whose columns are aligned, to be read as it is.
std::string text_form(const MatrixTable& t) {
  std::vector<size_t> width(t.head.size());
  auto all = t.rows;
  all.insert(all.begin(), t.head);
  for (const auto& row : all)
    for (size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], columns_of(row[c]));
  std::string out, rule = "|";
  for (size_t c = 0; c < width.size(); ++c)
    rule += std::string(width[c] + 1, '-') + (c < t.text_columns ? "-|" : ":|");
  for (const auto& row : all) {
    out += "|";
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string space(width[c] - columns_of(row[c]), ' ');
      out += " " + (c < t.text_columns ? row[c] + space : space + row[c]) + " |";
    }
    out += "\n" + (&row == &all.front() ? rule + "\n" : "");
  }
  for (const std::string& note : t.notes) out += "\n" + console::printable(note) + "\n";
  return out;
}

std::string csv_form(const json& record) {
  const auto field = [](std::string s) {
    if (s.find_first_of(",\"\n") == std::string::npos) return s;
    for (size_t i = 0; (i = s.find('"', i)) != std::string::npos; i += 2) s.insert(i, "\"");
    return "\"" + s + "\"";
  };
  const auto number = [](const json& j, const char* pointer) {
    const json::json_pointer at(pointer);
    return j.contains(at) && j.at(at).is_number() ? fmt::format("{}", j.at(at).get<double>()) : "";
  };
  std::string out = "method,teachers,data,seed,status,student,top1,top1_best";
  for (const Measure& m : kMeasures) out += str(",", std::string(m.pointer).substr(1));
  out += ",reason\n";
  for (const json& cell : record.at("cells")) {
    for (const json& s : cell.value("students", json::array({json::object()}))) {
      out +=
          fmt::format("{},{},{},{},{},{},{},{}", field(cell.at("method")),
                      field(cell.at("teachers")), field(cell.at("data")),
                      cell.at("seed").get<uint64_t>(), cell.at("status").get<std::string>(),
                      field(s.value("student", "")), number(s, "/top1"), number(s, "/top1_best"));
      for (const Measure& m : kMeasures) out += "," + number(cell, m.pointer);
      out += "," + field(cell.value("reason", "")) + "\n";
    }
  }
  return out;
}

}  // namespace

MatrixTable summarise(const json& record) {
  MatrixTable t;
  const json& cells = record.at("cells");
  t.lines = lines_of(record);
  t.head = {"method", "teachers", "data", "student", "seeds", "last", "best"};
  t.text_columns = 4;
  for (const json& other : record.at("against")) t.head.push_back("− " + other.get<std::string>());
  t.head.emplace_back("published");
  for (const Measure& m : kMeasures) t.head.emplace_back(m.title);
  for (const Line& line : t.lines) {
    std::vector<double> best;
    for (const size_t i : line.cells)
      if (const json* s = student_of(cells[i], line.student); s->contains("top1_best"))
        best.push_back(s->at("top1_best"));
    std::vector<std::string> row = {line.method,    line.teachers,          line.data,
                                    line.student,   str(line.cells.size()), mean_text(line.top1),
                                    mean_text(best)};
    for (const json& other : record.at("against"))
      row.push_back(against_text(cells, line, t.lines, other));
    row.push_back(published_text(record, line));
    for (const Measure& m : kMeasures) {
      std::vector<double> values;
      for (const size_t i : line.cells)
        if (const json::json_pointer at(m.pointer); cells[i].contains(at))
          values.push_back(cells[i].at(at));
      row.push_back(values.empty() ? "" : m.text(mean(values)));
    }
    t.rows.push_back(std::move(row));
  }
  drop_empty_columns(&t);
  size_t missing = 0;
  for (const json& cell : cells) {
    const std::string status = cell.at("status");
    if (status == "failed")
      t.notes.push_back(
          str("failed: ", cell.at("cell").get<std::string>(), ": ", cell.value("reason", "")));
    missing += status == "open" || status == "running";
  }
  if (missing > 0)
    t.notes.push_back(str("not finished: ", missing, " of ", cells.size(), " cells"));
  return t;
}

std::string matrix_table(const json& record, const std::string& format, const std::string& folder) {
  try {
    if (format == "text" || format == "markdown") return text_form(summarise(record));
    if (format == "csv") return csv_form(record);
    if (format == "html") return matrix_html(record, folder);
    if (format == "json") return record.dump(1) + "\n";
  } catch (const json::exception& e) {
    throw DataError(str("not the record of a matrix (", e.what(), ")"));
  }
  throw UsageError("--table: \"" + format + "\" is none of text | markdown | csv | html | json");
}

void write_tables(const Matrix& m) {
  const json record = matrix_record(m);
  const std::pair<const char*, const char*> files[] = {{"record.json", "json"},
                                                       {"table.md", "markdown"},
                                                       {"table.csv", "csv"},
                                                       {"table.html", "html"}};
  for (const auto& [name, format] : files)
    data::write_file_atomic(m.folder + "/" + name, matrix_table(record, format, m.folder));
}

}  // namespace mtcki

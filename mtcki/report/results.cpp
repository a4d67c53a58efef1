// The numbers of a run, and of several side by side.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "mtcki/host/progress.h"
#include "mtcki/report/html.h"
#include "mtcki/report/labels.h"
#include "mtcki/report/sections.h"

namespace mtcki {

using nlohmann::json;

namespace {

constexpr size_t kMostKeys = 60;

// What networks are compared by: without real images, agreement with the teachers.
const char* measure_of(const Run& r) { return r.result.contains("note") ? "agreement" : "top1"; }

const json* best_student(const Run& r) {
  const char* measure = measure_of(r);
  const json* best = nullptr;
  for (const json& s : child(r.result, "students"))
    if (s.is_object() && (!best || number_of(s, measure) > number_of(*best, measure)) &&
        !std::isnan(number_of(s, measure)))
      best = &s;
  return best;
}

double images_of(const Run& r) {
  const double of_result = number_of(child(r.result, "synthetic"), "images");
  return std::isnan(of_result) ? number_of(r.synth, "total") : of_result;
}

std::string command_of(const Run& r) {
  std::string out;
  for (const json& a : child(r.last_attempt, "argv"))
    if (a.is_string()) out += (out.empty() ? "" : " ") + a.get<std::string>();
  return out;
}

}  // namespace

std::string headline_section(const Run& r) {
  const json* student = best_student(r);
  const double images = images_of(r), teacher = r.best_teacher();
  std::string tiles, lead;
  const auto tile = [&tiles](const std::string& number, const std::string& what) {
    tiles += "<div><b>" + number + "</b>" + what + "</div>\n";
  };
  if (student) {
    const double top1 = number_of(*student, measure_of(r));
    const bool real = measure_of(r) == std::string("top1");
    const std::string name = html_escape(text_of(*student, "name"));
    tile(fmt::format("{:.2f} %", top1),
         "best student, " + name +
             (real ? ", on real test images" : ": agreement with its teachers"));
    if (teacher > 0)
      tile(fmt::format("{:.1f} %", 100 * top1 / teacher),
           fmt::format("of its best teacher's {:.2f} % kept", teacher));
    if (images > 0)
      lead = fmt::format(
          "{} learned from {:.0f} synthetic images alone and puts {:.2f} % of the {}{}.", name,
          images, top1,
          real ? "real test images into the right class"
               : "images it is measured on into the class that its teachers choose",
          teacher > 0 ? fmt::format("; its best teacher {:.2f} %", teacher) : "");
  }
  if (images > 0) tile(fmt::format("{:.0f}", images), "synthetic images");
  if (r.seconds > 0) tile(duration_text(r.seconds), "all stages");
  const std::string status = text_of(r.last_attempt, "status");
  const json& machine = child(r.manifest, "machine");
  std::string where = text_of(machine, "cpu");
  if (!where.empty())
    where = fmt::format("{}, threads: {}", where, number_text(r.manifest, "threads", "{:.0f}"));
  std::string out;
  if (!lead.empty()) out += "<p class=\"lead\">" + lead + "</p>\n";
  if (!tiles.empty()) out += "<div class=\"tiles\">\n" + tiles + "</div>\n";
  if (status.empty()) return out;
  return out + fmt::format("<p class=\"break\"><b class=\"{}\">{}</b>{} · <code>{}</code></p>\n",
                           status == "finished"  ? "good"
                           : status == "running" ? ""
                                                 : "bad",
                           html_escape(status), where.empty() ? "" : " · " + html_escape(where),
                           html_escape(command_of(r)));
}

std::string result_section(const std::vector<Run>& runs) {
  const bool several = runs.size() > 1;
  std::vector<std::string> head = {"", "name", "model"};
  if (several) head.insert(head.begin(), "run");
  const size_t text_columns = head.size();
  static const std::pair<const char*, const char*> columns[] = {
      {"top1", "top-1 %"},          {"kept", "kept %"},
      {"top5", "top-5 %"},          {"agreement", "agreement %"},
      {"top1_best", "best test %"}, {"agreement_best", "best agreement %"}};
  std::set<std::string> known;
  for (const Run& r : runs)
    for (const char* kind : {"teachers", "students"})
      for (const json& j : child(r.result, kind))
        for (const auto& entry : j.items()) known.insert(entry.key());
  if (known.count("top1")) known.insert("kept");
  for (const auto& [key, title] : columns)
    if (known.count(key)) head.emplace_back(title);
  head.emplace_back("parameters");
  std::string rows;
  for (const Run& r : runs) {
    const double teacher = r.best_teacher();
    for (const std::string kind : {"teacher", "student"})
      for (const json& j : child(r.result, (kind + "s").c_str())) {
        if (!j.is_object()) continue;
        std::vector<std::string> cells = {kind, html_escape(text_of(j, "name")),
                                          html_escape(text_of(j, "model"))};
        if (several) cells.insert(cells.begin(), html_escape(r.name));
        const bool student = kind == "student";
        for (const auto& [key, title] : columns) {
          if (!known.count(key)) continue;
          if (key == std::string("kept"))
            cells.push_back(student && teacher > 0 && j.contains("top1")
                                ? fmt::format("{:.1f}", 100 * number_of(j, "top1") / teacher)
                                : "–");
          else
            cells.push_back(number_text(
                j, key, student && key == std::string(measure_of(r)) ? "<b>{:.2f}</b>" : "{:.2f}"));
        }
        cells.push_back(number_text(j, "parameters", "{:.0f}"));
        rows += html_row(cells, "td", text_columns);
      }
  }
  std::string out;
  if (!rows.empty()) out += html_table(html_row(head, "th", text_columns) + rows);
  if (known.count("top1"))
    out +=
        "<p class=\"soft\">On the real test set, after the last step. Kept: top-1 as a part of "
        "the best teacher's. Best test: the best of all tests, so chosen by the test set. "
        "Agreement: test images that student and fused teachers put into the same class.</p>\n";
  for (const Run& r : runs) {
    if (const std::string note = html_escape(text_of(r.result, "note")); !note.empty())
      out += fmt::format("<p class=\"soft\">{} {}</p>\n", html_escape(several ? r.name : ""), note);
    std::string facts;
    for (const auto& [name, value] : child(r.result, "metrics").items()) {
      if (!value.is_number()) continue;
      const Label label = label_of(name);
      facts +=
          fmt::format("<tr><td>{}</td><td class=\"n\">{}</td><td class=\"help\">{}</td></tr>\n",
                      html_escape(label.title), label_text(label, value.get<double>()),
                      html_escape(label.help));
    }
    if (facts.empty()) continue;
    if (several) out += "<h3>" + html_escape(r.name) + "</h3>\n";
    out += html_table(facts);
  }
  return out.empty() ? "<p class=\"soft\">No results yet.</p>\n" : out;
}

namespace {

// "seed", "name" and "out" say which run it is, not what was done.
bool says_which(const std::string& key) { return key == "seed" || key == "name" || key == "out"; }

std::string differing_keys(const std::vector<Run>& runs) {
  std::vector<std::string> keys;
  for (const Run& r : runs)
    for (const auto& [key, value] : r.values)
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
  std::vector<std::string> head{"key"};
  for (const Run& r : runs) head.push_back(html_escape(r.name));
  std::string rows;
  size_t shown = 0;
  for (const std::string& key : keys) {
    std::vector<std::string> cells{html_escape(key)};
    bool differ = false;
    for (const Run& r : runs) {
      const std::string value = config_value(r.values, key);
      differ = differ || value != config_value(runs[0].values, key);
      cells.push_back(value.empty() ? "–" : html_escape(value));
    }
    if (differ && key != "name" && key != "out" && shown++ < kMostKeys)
      rows += html_row(cells, "td", 1);
  }
  if (shown > kMostKeys) rows += html_row({fmt::format("and {} more", shown - kMostKeys)}, "td", 1);
  return rows.empty() ? "<p class=\"soft\">The runs' configurations are the same.</p>\n"
                      : html_table(html_row(head, "th", 1) + rows);
}

// Top-1 of each student over the runs that differ in their seed alone.
std::string over_seeds(const std::vector<Run>& runs) {
  struct Group {
    std::string names;
    std::vector<std::pair<std::string, std::vector<double>>> students;
  };
  std::map<std::string, Group> groups;  // by what the runs share
  for (const Run& r : runs) {
    std::string same;
    for (const auto& [key, value] : r.values)
      if (!says_which(key)) same += key + "=" + value + "\n";
    Group& g = groups[same];
    g.names += (g.names.empty() ? "" : ", ") + r.name;
    for (const json& s : child(r.result, "students")) {
      if (!s.is_object() || std::isnan(number_of(s, "top1"))) continue;
      const std::string name = text_of(s, "name");
      auto at =
          std::ranges::find_if(g.students, [&](const auto& known) { return known.first == name; });
      if (at == g.students.end()) at = g.students.insert(at, {name, {}});
      at->second.push_back(number_of(s, "top1"));
    }
  }
  std::string rows;
  bool repeated = false;
  for (const auto& [same, g] : groups)
    for (const auto& [name, values] : g.students) {
      const auto n = static_cast<double>(values.size());
      double sum = 0, squares = 0;
      for (const double v : values) sum += v;
      for (const double v : values) squares += (v - sum / n) * (v - sum / n);
      repeated = repeated || values.size() > 1;
      rows += html_row(
          {html_escape(g.names), html_escape(name), fmt::format("{:.0f}", n),
           values.size() > 1 ? fmt::format("{:.2f} ± {:.2f}", sum / n, std::sqrt(squares / (n - 1)))
                             : fmt::format("{:.2f}", sum)},
          "td", 2);
    }
  return repeated ? "<h3>Over seeds</h3>\n" +
                        html_table(html_row({"runs that differ in the seed alone", "student",
                                             "runs", "top-1 %, mean ± deviation"},
                                            "th", 2) +
                                   rows)
                  : "";
}

}  // namespace

std::string compare_section(const std::vector<Run>& runs) {
  return runs.size() < 2 ? "" : differing_keys(runs) + over_seeds(runs);
}

}  // namespace mtcki

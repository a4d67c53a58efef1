// The curves of one or several runs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "mtcki/log/chance_watch.h"
#include "mtcki/report/chart.h"
#include "mtcki/report/labels.h"
#include "mtcki/report/sections.h"

namespace mtcki {

namespace {

struct Chart {
  std::string family, kind, value;
  std::vector<Series> series;
};

// "history_contrast@resnet8.chance": a value of steps that asked the teacher resnet8, at chance.
struct Name {
  explicit Name(std::string text) : value(std::move(text)) {
    level = value.ends_with(kChanceSuffix);
    if (level) value.resize(value.size() - std::string(kChanceSuffix).size());
    const size_t at = value.find('@');
    if (at != std::string::npos) asked = value.substr(at + 1), value.resize(at);
  }
  std::string value, asked;
  bool level;
};

std::vector<Chart> charts_of(const std::vector<Run>& runs) {
  std::vector<Chart> charts;
  for (const Run& r : runs) {
    std::map<std::string, std::pair<size_t, size_t>> known;  // chart and series of this run
    for (const auto& l : r.lines) {
      if (l.kind != "train" && l.kind != "eval") continue;
      const size_t slash = l.stage.find('/');
      const std::string family = l.stage.substr(0, slash);
      for (const auto& [key, y] : l.values) {
        auto at = known.find(l.stage + "\n" + l.kind + "\n" + key);
        if (at == known.end()) {
          const Name name(key);
          auto c = std::ranges::find_if(charts, [&](const Chart& x) {
            return x.family == family && x.kind == l.kind && x.value == name.value;
          });
          if (c == charts.end()) c = charts.insert(charts.end(), {family, l.kind, name.value, {}});
          std::string label = slash == std::string::npos ? l.stage : l.stage.substr(slash + 1);
          if (!name.asked.empty()) label = name.asked + " asked";
          if (name.level) label += " at chance";
          if (runs.size() > 1) label = r.name + ": " + label;
          c->series.push_back({label, {}, name.level});
          at =
              known
                  .emplace(l.stage + "\n" + l.kind + "\n" + key,
                           std::pair{static_cast<size_t>(c - charts.begin()), c->series.size() - 1})
                  .first;
        }
        charts[at->second.first].series[at->second.second].points.emplace_back(l.step, y);
      }
    }
  }
  return charts;
}

// Levels that several series share are one line.
void merge_levels(std::vector<Series>* series) {
  std::vector<Series> out;
  for (Series& s : *series) {
    const auto same = std::ranges::find_if(out, [&](const Series& o) {
      return s.level && o.level && o.points.back().second == s.points.back().second &&
             o.points.front().second == s.points.front().second;
    });
    if (same != out.end())
      same->name = "at chance";
    else
      out.push_back(std::move(s));
  }
  // By name, so that a network has one colour in all charts of its stage.
  std::ranges::stable_sort(out, {}, [](const Series& s) { return std::tie(s.level, s.name); });
  *series = std::move(out);
}

// What a value can be compared with.
void add_targets(const Chart& chart, const std::vector<Run>& runs, std::vector<Series>* series) {
  double best = -1;
  int64_t classes = 0;
  for (const Run& r : runs) {
    best = std::max(best, r.best_teacher());
    classes = std::max(classes, r.classes());
  }
  if (chart.family == "student" && chart.value == "top1" && best >= 0)
    series->push_back({"best teacher", {{0, best}}, true});
  if (classes > 1 && (chart.value == "top1" || chart.value == "acc"))
    series->push_back({"at chance", {{0, 100.0 / static_cast<double>(classes)}}, true});
  if (classes > 1 && (chart.value == "class_prior" || chart.value == "synthesis.class_prior" ||
                      (chart.value == "loss" && chart.family == "teacher")))
    series->push_back({"at chance, ln K", {{0, std::log(static_cast<double>(classes))}}, true});
}

// Stages of very different lengths are compared by the share of the stage.
std::string by_share(std::vector<Series>* series, bool several) {
  double shortest = std::numeric_limits<double>::infinity(), longest = 0;
  for (const Series& s : *series) {
    shortest = std::min(shortest, s.points.back().first);
    longest = std::max(longest, s.points.back().first);
  }
  if (!several || longest < 3 * shortest) return "step";
  for (Series& s : *series) {
    const double last = s.points.back().first;
    for (auto& [x, y] : s.points) x = last > 0 ? 100 * x / last : 0;
  }
  return "% of the stage";
}

std::string figure_of(Chart chart, const std::vector<Run>& runs) {
  double first = std::numeric_limits<double>::infinity(), last = -first;
  for (Series& s : chart.series) {
    std::ranges::stable_sort(s.points, {}, [](const auto& point) { return point.first; });
    first = std::min(first, s.points.front().first);
    last = std::max(last, s.points.back().first);
  }
  if (!(first < last)) return "";  // a single number is in the tables
  merge_levels(&chart.series);
  const std::string x = by_share(&chart.series, runs.size() > 1);
  add_targets(chart, runs, &chart.series);
  const Label label = label_of(chart.value);
  const std::string unit = label.unit == "B" ? "bytes" : label.unit;
  return line_chart(chart.series, {.title = label.title + (unit.empty() ? "" : ", " + unit),
                                   .x_label = x,
                                   .allow_log = label.unit != "%",
                                   .markers = chart.kind == "eval",
                                   .help = label.help});
}

}  // namespace

std::string curves_section(const std::vector<Run>& runs) {
  const std::vector<Chart> charts = charts_of(runs);
  static const std::map<std::string, std::string> titles{{"teacher", "Teachers"},
                                                         {"synthesis", "Synthesis"},
                                                         {"student", "Students"},
                                                         {"metrics", "Held-out classifier"}};
  std::vector<std::string> families;
  for (const Chart& c : charts)
    if (std::ranges::find(families, c.family) == families.end()) families.push_back(c.family);
  std::string out;
  for (const std::string& f : families) {
    std::string shown, folded;
    // Tests first: they are what the reader looks for.
    for (const char* kind : {"eval", "train"})
      for (const Chart& c : charts)
        if (c.family == f && c.kind == kind)
          (label_of(c.value).main ? shown : folded) += figure_of(c, runs);
    if (shown.empty() && folded.empty()) continue;
    const auto title = titles.find(f);
    out += "<h3>" + html_escape(title == titles.end() ? f : title->second) + "</h3>\n";
    if (!shown.empty()) out += "<div class=\"grid2\">\n" + shown + "</div>\n";
    if (!folded.empty())
      out += html_details("More: parts of the loss, rates, speed",
                          "<div class=\"grid2\">\n" + folded + "</div>");
  }
  return out;
}

}  // namespace mtcki

#include "mtcki/host/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mtcki/host/console.h"

namespace mtcki {

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}d {}h", s / 86400, s / 3600 % 24);
}

void Pace::add(double units, double seconds) {
  const double kept = std::exp(-seconds / memory_);
  units_ = kept * units_ + units;
  seconds_ = kept * seconds_ + seconds;
}

std::string Progress::text(const std::string& stage, int64_t done, int64_t total,
                           double images_per_second, double eta_seconds, const Values& values,
                           int width) {
  // What must be seen comes first.
  std::vector<std::string> fields;
  if (done < total) fields.push_back("ETA " + duration_text(eta_seconds));
  if (images_per_second > 0)
    fields.push_back(
        fmt::format("{:.{}f} img/s", images_per_second, images_per_second < 10 ? 1 : 0));
  for (const auto& [name, value] : values) {
    if (name.ends_with(".chance") && !fields.empty()) {  // of the loss before it (chance_watch.h)
      fields.back() += fmt::format(" (chance {:.4g})", value);
      continue;
    }
    const bool percent =
        name.find("top1") != std::string::npos || name == "acc" || name == "agreement";
    fields.push_back(percent ? fmt::format("{} {:.2f}%", name, value)
                             : fmt::format("{} {:.4g}", name, value));
  }
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0.0;
  const std::string counts = fmt::format("{:3.0f}% {}/{}", 100 * share, done, total);
  const auto line = [&](int bar, size_t count) {
    const int filled = static_cast<int>(std::lround(bar * std::min(1.0, share)));
    std::string out = stage + " ";
    if (bar > 0) out += "[" + std::string(filled, '#') + std::string(bar - filled, '-') + "] ";
    out += counts;
    for (size_t i = 0; i < count; ++i) out += "  " + fields[i];
    return out;
  };
  if (width <= 0) return line(0, fields.size());
  const auto room = static_cast<size_t>(width);
  if (std::string all = line(20, fields.size()); all.size() < room) return all;
  for (size_t count = fields.size() + 1; count-- > 0;)
    if (std::string some = line(10, count); some.size() < room) return some;
  return line(0, 0).substr(0, room - 1);
}

void Progress::update(const std::string& stage, int64_t done, int64_t total,
                      double images_per_second, const Values& values) {
  const Clock::time_point now = Clock::now();
  if (stage != stage_ || done < last_done_) {
    stage_ = stage;
    pace_ = Pace();
    last_done_ = done;
    last_time_ = now;
    last_shown_ = {};
  } else if (done > last_done_) {
    pace_.add(static_cast<double>(done - last_done_),
              std::chrono::duration<double>(now - last_time_).count());
    last_done_ = done;
    last_time_ = now;
  }
  if (console::quiet()) return;
  const bool terminal = console::is_terminal();
  const double since = std::chrono::duration<double>(now - last_shown_).count();
  if (done < total && since < (terminal ? 0.1 : 10.0)) return;
  last_shown_ = now;
  const double eta = pace_.seconds_per_unit() * static_cast<double>(total - done);
  const std::string line =
      text(stage, done, total, images_per_second, eta, values, terminal ? console::width() : 0);
  if (terminal)
    console::status(line);
  else
    console::info(line);
}

void Progress::end() {
  console::status("");
  stage_.clear();
}

}  // namespace mtcki

#include "mtcki/log/run_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "data/formats/atomic_file.h"
#include "data/formats/image_file.h"
#include "data/formats/tfevents.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/log/metrics_file.h"
#include "mtcki/log/stage_profiles.h"
#include "tensor/error.h"

namespace mtcki {

using nlohmann::json;

namespace {

double unix_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string flat_name(std::string stage) {
  for (char& c : stage)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '-';
  return stage;
}

// What a viewer shows: clamped to [0,1], not finite as black.
Tensor as_bytes(const Tensor& images) {
  if (images.rank() != 4 || (images.size(1) != 1 && images.size(1) != 3) || images.size(0) < 1)
    throw ShapeError("RunLog::images: expects [N,1 or 3,H,W], found " + images.describe());
  const Tensor x = images.plain();
  if (x.dtype() == DType::u8) return x;
  const Tensor f = x.to(DType::f32);
  Tensor out = Tensor::empty(f.shape(), DType::u8);
  const float* from = f.data<float>();
  uint8_t* to = out.data<uint8_t>();
  for (int64_t i = 0; i < f.numel(); ++i) {
    const float v = std::isfinite(from[i]) ? std::clamp(from[i], 0.0f, 1.0f) : 0.0f;
    to[i] = static_cast<uint8_t>(v * 255.0f + 0.5f);
  }
  return out;
}

}  // namespace

struct RunLog::Impl {
  std::string folder;  // empty: silent
  bool tensorboard = false;
  int fd = -1;
  std::map<std::string, std::unique_ptr<data::EventWriter>> events;
  std::map<std::string, int64_t> restart;  // stage -> first step that is written again
  Progress progress;
  std::vector<std::string> warnings;
  ChanceWatch chance;
  std::unique_ptr<StageProfiles> profiles;
  std::function<void()> show;
  std::chrono::steady_clock::time_point shown;

  void news() {
    const auto now = std::chrono::steady_clock::now();
    if (!show || now - shown < std::chrono::seconds(5)) return;
    shown = now;
    show();
  }

  ~Impl() {
    if (fd >= 0) close(fd);
  }

  std::string metrics_path() const { return folder + "/metrics.jsonl"; }

  void open_metrics() { fd = data::open_for_appending(metrics_path()); }

  void append(const json& line) {
    const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    data::write_all(fd, text.data(), text.size(), metrics_path());
  }

  // One folder per stage: stages count their steps separately, and a restart of one must not make
  // TensorBoard drop points of another.
  data::EventWriter& writer(const std::string& stage) {
    auto& w = events[stage];
    if (!w) {
      w = std::make_unique<data::EventWriter>(folder + "/events/" + flat_name(stage));
      const auto r = restart.find(stage);
      if (r != restart.end()) w->session_start(r->second);
    }
    return *w;
  }
};

RunLog::RunLog() : impl_(std::make_unique<Impl>()) {}

RunLog::RunLog(const std::string& folder, bool tensorboard) : impl_(std::make_unique<Impl>()) {
  if (folder.empty()) throw UsageError("run log: no folder given");
  impl_->folder = folder;
  impl_->tensorboard = tensorboard;
  data::make_directories(folder + "/samples");
  impl_->open_metrics();
  metrics_file::repair(impl_->metrics_path());
}

RunLog::~RunLog() = default;

void RunLog::metrics(const std::string& stage, int64_t step, double epoch, const std::string& kind,
                     const Values& values) {
  for (const std::string& text : impl_->chance.see(stage, step, values)) warn(text);
  if (impl_->folder.empty()) return;
  json v = json::object();
  for (const auto& [name, value] : values) v[name] = metrics_file::number(value);
  impl_->append({{"t", std::floor(unix_now() * 1000) / 1000},
                 {"stage", stage},
                 {"step", step},
                 {"epoch", metrics_file::number(epoch)},
                 {"kind", kind},
                 {"values", v}});
  if (kind == "eval") impl_->news();
  if (!impl_->tensorboard || kind == "summary") return;
  Values tagged;
  for (const auto& [name, value] : values) tagged.emplace_back(kind + "/" + name, value);
  impl_->writer(stage).scalars(step, tagged);
}

void RunLog::images(const std::string& stage, int64_t step, const Tensor& images, int64_t columns) {
  if (impl_->folder.empty()) return;
  const Tensor grid = data::image_grid(as_bytes(images), columns);
  const std::string png = data::encode_png(grid);
  data::write_file_atomic(
      fmt::format("{}/samples/{}-{:08}.png", impl_->folder, flat_name(stage), step), png);
  if (impl_->tensorboard)
    impl_->writer(stage).image_png("samples", step, png, grid.size(1), grid.size(2), grid.size(0));
  impl_->news();
}

void RunLog::progress(const std::string& stage, int64_t done, int64_t total,
                      double images_per_second, const Values& values) {
  if (!impl_->folder.empty()) impl_->progress.update(stage, done, total, images_per_second, values);
}

void RunLog::end_progress() { impl_->progress.end(); }

void RunLog::info(const std::string& text) {
  if (!impl_->folder.empty()) console::info(text);
}

void RunLog::warn(const std::string& text) {
  impl_->warnings.push_back(text);
  console::warn(text);
  if (!impl_->folder.empty())
    impl_->append(
        {{"t", unix_now()}, {"stage", ""}, {"step", 0}, {"kind", "warning"}, {"text", text}});
}

void RunLog::on_news(std::function<void()> show) { impl_->show = std::move(show); }

void RunLog::profile_stages(int64_t steps, Device device, const std::string& math) {
  if (impl_->folder.empty() || steps <= 0) return;
  impl_->profiles =
      std::make_unique<StageProfiles>(impl_->folder + "/profile", steps, device, math);
}
StageProfiles* RunLog::profiles() { return impl_->profiles.get(); }

const std::vector<std::string>& RunLog::warnings() const { return impl_->warnings; }

void RunLog::rewind(const std::string& stage, int64_t step) {
  if (impl_->folder.empty()) return;
  close(impl_->fd);
  impl_->fd = -1;
  metrics_file::forget_after(impl_->metrics_path(), stage, step);
  impl_->open_metrics();
  impl_->restart[stage] = step + 1;
  impl_->events.erase(stage);  // the next value opens a new file that begins with the restart
}

}  // namespace mtcki

// The synthetic images of a run: by class, a batch as it came to be, and grids of batches.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "data/formats/image_file.h"
#include "data/formats/state_file.h"
#include "mtcki/report/html.h"
#include "mtcki/report/sections.h"
#include "tensor/error.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int64_t kColumns = 10;     // images of a class
constexpr size_t kMostClasses = 20;  // rows of the gallery

// At most `most` evenly spaced, the last one included.
template <class T>
std::vector<T> spread(const std::vector<T>& all, size_t most) {
  if (all.size() <= most) return all;
  std::vector<T> out;
  for (size_t i = 0; i < most; ++i) out.push_back(all[(i + 1) * all.size() / most - 1]);
  return out;
}

struct Shard {
  Tensor images, labels;
};

// Shards spread over the set; damaged ones are left out.
std::vector<Shard> some_shards(const Run& r) {
  std::vector<std::string> files;
  for (const json& s : child(r.synth, "shards"))
    if (s.is_object() && text_of(s, "file").find('/') == std::string::npos)
      files.push_back(r.folder + "/synth/" + text_of(s, "file"));
  std::vector<Shard> out;
  for (const std::string& file : spread(files, kColumns)) try {
      Shard shard;
      for (const auto& [name, tensor] : data::read_safetensors(file).tensors) {
        if (name == "images") shard.images = tensor;
        if (name == "labels") shard.labels = tensor;
      }
      if (shard.images.defined() && shard.labels.defined() && shard.images.rank() == 4 &&
          shard.images.dtype() == DType::u8 && shard.labels.dtype() == DType::i64 &&
          shard.labels.shape() == Shape{shard.images.size(0)})
        out.push_back(std::move(shard));
    } catch (const Error&) {
      // The run itself refuses it.
    }
  return out;
}

// Up to kColumns images of a class, an equal number of each shard; undefined for none.
Tensor of_class(const std::vector<Shard>& shards, int64_t label) {
  std::vector<Tensor> images;
  std::vector<int64_t> next(shards.size());
  for (bool found = true; found && std::ssize(images) < kColumns;) {
    found = false;
    for (size_t s = 0; s < shards.size() && std::ssize(images) < kColumns; ++s) {
      const auto* labels = shards[s].labels.data<int64_t>();
      const int64_t n = shards[s].labels.numel();
      while (next[s] < n && labels[next[s]] != label) ++next[s];
      if (next[s] == n) continue;
      images.push_back(shards[s].images.slice(next[s], next[s] + 1));
      ++next[s];
      found = true;
    }
  }
  return images.empty() ? Tensor() : cat(images, 0);
}

std::string gallery(const Run& r, size_t bytes) {
  const std::vector<Shard> shards = some_shards(r);
  const json& names = list_of(r.synth, "class_names");
  const json& counts = list_of(r.synth, "per_class");
  std::vector<int64_t> classes;
  for (int64_t k = 0; k < r.classes(); ++k) classes.push_back(k);
  std::string rows;
  for (const int64_t k : spread(classes, kMostClasses)) {
    const auto at = static_cast<size_t>(k);
    const Tensor images = of_class(shards, k);
    if (!images.defined()) continue;
    const std::string name = at < names.size() && names[at].is_string()
                                 ? html_escape(names[at].get<std::string>())
                                 : std::to_string(k);
    std::string row = fmt::format(
        "<tr><th>{} <small>{}</small></th><td>{}</td></tr>\n", name,
        counts[at].is_number() ? fmt::format("{:.0f}", counts[at].get<double>()) : "",
        html_image(data::image_grid(images, kColumns), "Synthetic images made as " + name));
    if (rows.size() + row.size() > bytes) break;
    rows += row;
  }
  if (rows.empty()) return "";
  return fmt::format(
      "<h3>By class</h3>\n<p class=\"soft\">{} synthetic images{}. A row shows {} of a class, from "
      "early batches (left) to late ones, and how many there are of it.{}</p>\n<table "
      "class=\"gallery\">\n{}</table>\n",
      number_text(r.synth, "total", "{:.0f}"),
      text_of(r.synth, "quant").empty() ? "" : ", stored as bytes", kColumns,
      classes.size() > kMostClasses
          ? fmt::format(" {} of {} classes.", kMostClasses, classes.size())
          : "",
      rows);
}

// The steps of a batch of which there are pictures (synthesis/stage.cpp), one film per batch.
std::string film(const std::vector<Sample>& frames, int64_t g_steps) {
  std::map<int64_t, std::string> films;  // by batch
  for (const Sample& s : frames) {
    const int64_t batch = (s.step - 1) / g_steps, step = (s.step - 1) % g_steps + 1;
    films[batch] +=
        fmt::format("<div>{}{}</div>\n",
                    html_png(file_text(s.file),
                             fmt::format("Images of batch {} after step {}", batch + 1, step)),
                    step);
  }
  std::string out;
  for (const auto& [batch, strip] : films)
    out += fmt::format(
        "<figure><figcaption>Batch {}{}</figcaption><div class=\"film\">\n{}</div>"
        "</figure>\n",
        batch + 1, batch == 0 ? ", from noise" : "", strip);
  if (out.empty()) return "";
  return "<h3>From noise to image</h3>\n<p class=\"soft\">The best images so far of a batch, by "
         "how "
         "many of its " +
         std::to_string(g_steps) +
         " steps were done; each row is one image.</p>\n<div class=\"grid2\">\n" + out + "</div>\n";
}

std::string grids(const std::string& stage, const std::vector<Sample>& all, int64_t g_steps,
                  size_t bytes) {
  std::vector<Sample> shown;
  std::error_code ec;
  for (size_t most = 12; most > 0; --most) {
    shown = spread(all, most);
    size_t total = 0;
    for (const Sample& s : shown) total += fs::file_size(s.file, ec) / 3 * 4;
    if (total <= bytes) break;
    shown.clear();
  }
  std::string out;
  for (const Sample& s : shown) {
    const std::string what = stage == "synthesis" && s.step % g_steps == 0
                                 ? fmt::format("batch {}", s.step / g_steps)
                                 : fmt::format("{}, step {}", html_escape(stage), s.step);
    out += fmt::format("<figure class=\"shot\"><figcaption>{}</figcaption>{}</figure>\n", what,
                       html_png(file_text(s.file), "Images of " + what));
  }
  if (out.empty()) return "";
  return html_details(
      fmt::format("Whole batches{}: {} of {} pictures; all are in samples/",
                  stage == "synthesis" ? "" : ", " + html_escape(stage), shown.size(), all.size()),
      "<div class=\"grid2\">\n" + out + "</div>");
}

}  // namespace

std::string images_section(const Run& r, size_t bytes) {
  std::map<std::string, std::vector<Sample>> stages;
  for (const Sample& s : r.samples) stages[s.stage].push_back(s);
  const int64_t g_steps = std::max<int64_t>(
      1, std::strtoll(config_value(r.values, "synthesis.g_steps").c_str(), nullptr, 10));
  std::string out = gallery(r, bytes) + film(stages["film"], g_steps);
  stages.erase("film");
  for (const auto& [stage, all] : stages) out += grids(stage, all, g_steps, bytes / stages.size());
  return out;
}

}  // namespace mtcki

#include "mtcki/synthesis/image_pool.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "data/formats/state_file.h"
#include "data/sets/digest.h"
#include "tensor/comm.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int kFormatVersion = 1;
constexpr char kKind[] = "mtcki-synthetic-set";
constexpr int64_t kMostPixels = (int64_t{1} << 31) - 1;  // of all channels of an image

std::string shard_name(int64_t batch) { return fmt::format("shard-{:05}.safetensors", batch); }

std::string manifest_path(const std::string& dir) { return dir + "/manifest.json"; }

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
  fs::path folder = data::parent_directory(path);
  // The images of a student's rounds are made while it trains.
  if (folder.parent_path().parent_path().filename() == "students") folder = folder.parent_path();
  throw DataError(str(path, ": ", what, "; delete the folder \"", folder.string(),
                      "\" and run again: the same images are made anew"));
}

}  // namespace

ImagePool::ImagePool(std::string dir, PoolInfo info)
    : dir_(std::move(dir)), info_(std::move(info)) {
  data::make_directories(dir_);
  if (!fs::exists(manifest_path(dir_))) return;
  ImagePool old = open(dir_);
  if (old.info_.config_sha256 == info_.config_sha256) shards_ = std::move(old.shards_);
}

ImagePool ImagePool::open(const std::string& dir) {
  const std::string path = manifest_path(dir);
  if (!data::file_exists(path))
    throw DataError(str("\"", dir, "\": no synthetic set there (no manifest.json); `mtcki invert` ",
                        "makes the one of a run"));
  const json m = data::read_sealed_json(path);
  if (!m.is_object() || m.value("kind", json()) != kKind)
    damaged(path, "damaged, or not the manifest of a synthetic set");
  ImagePool pool;
  pool.dir_ = dir;
  try {
    const int version = m.at("format_version");
    if (version > kFormatVersion)
      throw DataError(str(path, ": format_version ", version, " is newer than this program's ",
                          kFormatVersion, "; use a newer mtcki"));
    const auto shape = m.at("shape").get<std::vector<int64_t>>();
    if (shape.size() != 3) damaged(path, "shape must have three numbers");
    PoolInfo& info = pool.info_;
    info.channels = shape[0];
    info.image_size = shape[1];
    info.num_classes = m.at("num_classes");
    info.class_names = m.at("class_names").get<std::vector<std::string>>();
    info.quant = m.at("quant");
    info.seed = m.at("seed");
    info.config_sha256 = m.at("config_sha256");
    info.command = m.at("command");
    info.teachers = m.at("teachers");
    pool.shards_ = m.at("shards").get<std::vector<Shard>>();
  } catch (const json::exception& e) {
    damaged(path, str("not a manifest (", e.what(), ")"));
  }
  pool.check_shapes(path);
  return pool;
}

// What would be believed when memory is taken and rows are placed.
void ImagePool::check_shapes(const std::string& manifest) const {
  const int64_t k = info_.num_classes, names = std::ssize(info_.class_names);
  int64_t pixels = 0, next = 0;
  if (info_.channels < 1 || info_.image_size < 1 ||
      !data::checked_multiply(info_.image_size, info_.image_size, &pixels) ||
      !data::checked_multiply(pixels, info_.channels, &pixels) || pixels > kMostPixels)
    damaged(manifest, "a shape that no image has");
  if (k < 1 || (names != 0 && names != k)) damaged(manifest, "num_classes and class_names differ");
  for (size_t i = 0; i < shards_.size(); ++i) {
    const Shard& s = shards_[i];
    const bool fits = s.file == shard_name(static_cast<int64_t>(i)) && s.first == next &&
                      s.count > 0 && s.bytes / pixels >= s.count && std::ssize(s.per_class) == k;
    if (!fits) damaged(manifest, str("shard ", i, " does not continue the one before"));
    next += s.count;
  }
}

void ImagePool::add(int64_t batch, const Tensor& images, const Tensor& labels,
                    const std::vector<std::pair<std::string, Tensor>>& more) {
  truncate(batch);
  if (batch != batches())
    throw Error(str("image pool: shard ", batch, " after ", batches(), " shards"));
  const Communicator& job = communicator();
  if (!job.is_root()) {
    job.barrier();
    shards_ = open(dir_).shards_;
    return;
  }
  const int64_t n = images.size(0);
  data::NamedTensors tensors{{"images", images.plain()},
                             {"labels", labels},
                             {"batch", Tensor::full({n}, static_cast<double>(batch), DType::i32)}};
  tensors.insert(tensors.end(), more.begin(), more.end());
  Shard shard;
  shard.file = shard_name(batch);
  data::write_safetensors(path(shard.file), tensors,
                          {{"format", "pt"}, {"mtcki.format_version", "1"}});
  shard.sha256 = data::sha256_file(path(shard.file));
  shard.crc32c = data::crc32c_file(path(shard.file));
  shard.bytes = static_cast<int64_t>(fs::file_size(path(shard.file)));
  shard.first = size();
  shard.count = n;
  shard.per_class.assign(static_cast<size_t>(info_.num_classes), 0);
  for (const int64_t y : labels.to_vector<int64_t>()) ++shard.per_class.at(static_cast<size_t>(y));
  shards_.push_back(std::move(shard));
  write_manifest();
  job.barrier();
}

uint32_t ImagePool::digest(int64_t batches) const {
  std::string text;
  for (int64_t i = 0; i < batches; ++i) {
    const Shard& s = shards_.at(static_cast<size_t>(i));
    text += str(s.file, " ", s.count, " ", s.sha256, "\n");
  }
  return data::crc32c(text.data(), text.size());
}

void ImagePool::require(int64_t batches, uint32_t digest) const {
  if (batches < 0 || this->batches() < batches || this->digest(batches) != digest)
    damaged(manifest_path(dir_),
            str("does not list the ", batches, " batches that the checkpoint continues"));
}

void ImagePool::truncate(int64_t batches) {
  if (batches >= this->batches()) return;
  const std::vector<Shard> dropped(shards_.begin() + batches, shards_.end());
  shards_.resize(static_cast<size_t>(batches));
  if (!communicator().is_root()) return;
  write_manifest();
  for (const Shard& shard : dropped) fs::remove(path(shard.file));
}

int64_t ImagePool::size() const {
  return shards_.empty() ? 0 : shards_.back().first + shards_.back().count;
}

std::vector<int64_t> ImagePool::count_per_class() const {
  std::vector<int64_t> total(static_cast<size_t>(info_.num_classes), 0);
  for (const Shard& shard : shards_)
    for (size_t k = 0; k < total.size() && k < shard.per_class.size(); ++k)
      total[k] += shard.per_class[k];
  return total;
}

void ImagePool::check_size(const Shard& shard) const {
  const std::string file = path(shard.file);
  std::error_code ec;
  if (!data::file_exists(file)) damaged(file, "missing");
  if (static_cast<int64_t>(fs::file_size(file, ec)) != shard.bytes || ec)
    damaged(file, str("has not the ", shard.bytes, " bytes of the manifest"));
}

void ImagePool::check_content(const Shard& shard) const {
  if (data::crc32c_file(path(shard.file)) != shard.crc32c)
    damaged(path(shard.file), "checksum differs from the manifest");
}

data::ImageSet ImagePool::load() const {
  data::ImageSet set{.name = "synthetic", .split = "train", .class_names = info_.class_names};
  if (shards_.empty()) damaged(manifest_path(dir_), "lists no images");
  for (const Shard& shard : shards_) check_size(shard);  // before memory is taken
  const int64_t s = info_.image_size;
  set.images = Tensor::empty({size(), info_.channels, s, s}, DType::u8);
  set.labels = Tensor::empty({size()}, DType::i64);
  for (const Shard& shard : shards_) {
    const std::string file = path(shard.file);
    check_content(shard);
    const data::StateFile content = data::read_safetensors(file);
    Tensor images, labels;
    for (const auto& [name, tensor] : content.tensors) {
      if (name == "images") images = tensor;
      if (name == "labels") labels = tensor;
    }
    const Shape expected{shard.count, info_.channels, s, s};
    if (!images.defined() || images.shape() != expected || images.dtype() != DType::u8)
      damaged(file, str("needs images u8 ", expected.to_string()));
    if (!labels.defined() || labels.shape() != Shape{shard.count} || labels.dtype() != DType::i64)
      damaged(file, str("needs labels i64 [", shard.count, "]"));
    set.images.slice(shard.first, shard.first + shard.count).copy_(images);
    set.labels.slice(shard.first, shard.first + shard.count).copy_(labels);
  }
  return set;
}

std::vector<Tensor> ImagePool::load(const std::string& prefix) const {
  std::vector<std::vector<Tensor>> parts;
  for (const Shard& shard : shards_) {
    check_size(shard);
    check_content(shard);
    const std::string file = path(shard.file);
    const data::NamedTensors tensors = data::read_safetensors(file).tensors;
    size_t there = 0;
    for (const auto& [name, tensor] : tensors) {
      if (name != str(prefix, there)) continue;
      if (parts.size() == there) parts.emplace_back();
      parts[there++].push_back(tensor);
    }
    if (there == 0 || there != parts.size())
      damaged(file, str("has not all of ", prefix, "0, ..."));
  }
  std::vector<Tensor> out;
  for (const std::vector<Tensor>& rows : parts) out.push_back(cat(rows));
  return out;
}

void ImagePool::verify() const {
  for (const Shard& shard : shards_) {
    check_size(shard);
    check_content(shard);
  }
}

void ImagePool::write_manifest() const {
  const json m = {{"format_version", kFormatVersion},
                  {"kind", kKind},
                  {"version", "0.1.0"},
                  {"config_sha256", info_.config_sha256},
                  {"shape", {info_.channels, info_.image_size, info_.image_size}},
                  {"num_classes", info_.num_classes},
                  {"class_names", info_.class_names},
                  {"quant", info_.quant},
                  {"seed", info_.seed},
                  {"teachers", info_.teachers},
                  {"command", info_.command},
                  {"total", size()},
                  {"per_class", count_per_class()},
                  {"shards", shards_}};
  data::write_sealed_json(manifest_path(dir_), m);
}

}  // namespace mtcki

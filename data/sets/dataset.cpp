#include "data/sets/dataset.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "data/sets/rows.h"
#include "tensor/nearest_name.h"

namespace mtcki::data {

namespace {

Tensor as_f32(const std::vector<double>& v) {
  Tensor t = Tensor::empty({static_cast<int64_t>(v.size())});
  for (size_t i = 0; i < v.size(); ++i) t.data<float>()[i] = static_cast<float>(v[i]);
  return t;
}

// In the order that dataset_names() shows.
const std::vector<DatasetRow>& rows() {
  static const std::vector<DatasetRow> table = {
      cifar_row(false),    cifar_row(true),    mnist_row(false),   mnist_row(true),
      tiny_imagenet_row(), image_folder_row(), synth10_row(false), synth10_row(true)};
  return table;
}

}  // namespace

Tensor Normalization::mean_tensor() const { return as_f32(mean); }
Tensor Normalization::std_tensor() const { return as_f32(std); }

bool Normalization::is_of_bytes() const {
  const auto above = [](const std::vector<double>& values, double most) {
    return std::ranges::any_of(values, [most](double v) { return v > most; });
  };
  return above(mean, 1) || above(std, 20);  // below that, somebody's own scale
}

const DatasetRow& dataset_row(const std::string& name) {
  if (name == "none")
    throw UsageError(
        "dataset \"none\" has no images: `mtcki run` and its stages make their own "
        "(docs/teachers.md); everything else needs real ones");
  std::vector<std::string> names;
  std::string all;
  for (const DatasetRow& row : rows()) {
    if (row.info.name == name) return row;
    names.push_back(row.info.name);
    all += (all.empty() ? "" : " ") + row.info.name;
  }
  throw UsageError(str(
      "unknown dataset \"", name, "\"", did_you_mean(name, names), " (known: ", all,
      "; any other as PNG or JPEG files: imagefolder, DIR/train/<class>/*, DIR/test/<class>/*)"));
}

std::vector<std::string> dataset_names() {
  std::vector<std::string> out;
  for (const DatasetRow& row : rows()) out.push_back(row.info.name);
  return out;
}

DatasetInfo dataset_info(const std::string& name) { return dataset_row(name).info; }
Normalization dataset_pixels(const std::string& name) {
  return name == "none" ? Normalization() : dataset_row(name).pixels;
}

std::string dataset_default_dir(const std::string& name) {
  std::vector<std::string> roots;
  if (const char* set = std::getenv("MTCKI_DATA_DIR"); set && *set) roots.emplace_back(set);
  roots.emplace_back("data");
  roots.emplace_back(MTCKI_SOURCE_DIR "/data");
  std::error_code ignored;
  for (const std::string& root : roots)
    for (const std::string& n : dataset_row(name).folders)
      if (std::filesystem::is_directory(root + "/" + n, ignored)) return root + "/" + n;
  return roots[0] + "/" + name;  // where "mtcki data get" would put it
}

void check_dataset_spec(const DatasetSpec& spec) {
  const DatasetInfo& info = dataset_row(spec.name).info;
  if (spec.split != "train" && spec.split != "test")
    throw UsageError(
        str("dataset \"", spec.name, "\": split is train or test, not \"", spec.split, "\""));
  if (spec.limit < 0) throw UsageError(str("dataset limit ", spec.limit, ": must not be negative"));
  if (spec.size != 0 && !info.image_files)
    throw UsageError(str("dataset \"", spec.name, "\": its images have one size, ", info.image_size,
                         " x ", info.image_size, "; a size is for imagefolder and tiny-imagenet"));
  if (spec.fit != "crop" && spec.fit != "pad")
    throw UsageError(str("dataset fit \"", spec.fit, "\": must be crop or pad"));
  if (spec.channels != 0 && spec.channels != info.channels &&
      (spec.channels != 1 || spec.name != "imagefolder"))
    throw UsageError(str("dataset \"", spec.name, "\": channels ", spec.channels,
                         ": imagefolder is read with 1 or 3, the other sets as they are"));
  const char* ordered = spec.class_order == "file"     ? "tiny-imagenet"
                        : spec.class_order == "number" ? "imagefolder"
                                                       : nullptr;
  if (ordered && spec.name != ordered)
    throw UsageError(
        str("dataset \"", spec.name, "\": class_order ", spec.class_order, " is for ", ordered));
}

ImageSet load_dataset(const DatasetSpec& spec) {
  check_dataset_spec(spec);
  const DatasetRow& row = dataset_row(spec.name);
  const DatasetInfo& info = row.info;
  const std::string dir = spec.dir.empty() ? dataset_default_dir(spec.name) : spec.dir;
  ImageSet set = row.load(dir, spec);
  if (set.size() == 0)
    throw DataError(str("\"", dir, "\": the ", spec.split, " part of ", spec.name,
                        " has no images: its files say so themselves; fetch them again"));
  set.name = spec.name;
  set.split = spec.split;
  set.normalization = info.normalization;
  if (set.images.size(1) == 1 && info.channels == 3) set.normalization = {{0.449}, {0.226}};
  if (set.class_ids.empty()) set.class_ids = set.class_names;
  if (spec.limit > 0 && set.size() > spec.limit) {
    set.images = set.images.slice(0, spec.limit).clone();  // so that the rest is freed
    set.labels = set.labels.slice(0, spec.limit).clone();
  }
  return set;
}

}  // namespace mtcki::data

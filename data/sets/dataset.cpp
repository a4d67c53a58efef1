#include "data/sets/dataset.h"

#include <cstdlib>
#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/cifar.h"
#include "data/sets/image_folder.h"
#include "data/sets/mnist.h"
#include "data/sets/synth10.h"
#include "tensor/nearest_name.h"

namespace mtcki::data {

namespace {

Tensor as_f32(const std::vector<double>& v) {
  Tensor t = Tensor::empty({static_cast<int64_t>(v.size())});
  for (size_t i = 0; i < v.size(); ++i) t.data<float>()[i] = static_cast<float>(v[i]);
  return t;
}

const Normalization kImageNet{{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};

// In the order that dataset_names() shows.
const std::vector<DatasetInfo>& table() {
  static const std::vector<DatasetInfo> rows = {
      {"cifar10",
       "CIFAR-10: 50,000 + 10,000 colour images 32x32, 10 classes",
       "https://www.cs.toronto.edu/~kriz/cifar.html (binary or Python version)",
       3,
       32,
       10,
       {{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}}},
      {"cifar100",
       "CIFAR-100: 50,000 + 10,000 colour images 32x32, 100 classes",
       "https://www.cs.toronto.edu/~kriz/cifar.html (binary or Python version)",
       3,
       32,
       100,
       {{0.5071, 0.4867, 0.4408}, {0.2675, 0.2565, 0.2761}}},
      {"mnist",
       "MNIST: 60,000 + 10,000 grey digits 28x28, 10 classes",
       "https://ossci-datasets.s3.amazonaws.com/mnist/",
       1,
       28,
       10,
       {{0.1307}, {0.3081}}},
      {"fashion-mnist",
       "Fashion-MNIST: 60,000 + 10,000 grey pieces of clothing 28x28, 10 classes",
       "https://github.com/zalandoresearch/fashion-mnist (shipped with this project)",
       1,
       28,
       10,
       {{0.2860}, {0.3530}}},
      {"tiny-imagenet",
       "Tiny-ImageNet: 100,000 + 10,000 colour images 64x64, 200 classes",
       "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
       3,
       64,
       200,
       {{0.4802, 0.4481, 0.3975}, {0.2302, 0.2265, 0.2262}}},
      {"imagefolder",
       "your own PNG or JPEG images: DIR/train/<class>/*, DIR/test/<class>/*; data.size for mixed "
       "sizes",
       "a folder of yours (--data-dir)", 3, 0, 0, kImageNet},
      {"synth10",
       "synth10: procedural shapes 32x32, 10 classes, made in memory",
       "none needed",
       3,
       32,
       10,
       {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}}},
      {"synth10-gray", "synth10 in grey, 28x28", "none needed", 1, 28, 10, {{0.5}, {0.25}}},
  };
  return rows;
}

// Other names under which a set's folder may lie.
std::vector<std::string> folder_names(const std::string& name) {
  if (name == "cifar10")
    return {"cifar10", "cifar-10", "cifar-10-batches-bin", "cifar-10-batches-py"};
  if (name == "cifar100") return {"cifar100", "cifar-100", "cifar-100-binary", "cifar-100-python"};
  if (name == "fashion-mnist") return {"fashion-mnist", "fashion_mnist", "FashionMNIST"};
  if (name == "mnist") return {"mnist", "MNIST"};
  if (name == "tiny-imagenet") return {"tiny-imagenet", "tiny-imagenet-200"};
  return {name};
}

const DatasetInfo& find(const std::string& name) {
  if (name == "none")
    throw UsageError(
        "dataset \"none\" has no images: `mtcki run` and its stages make their own "
        "(docs/teachers.md); everything else needs real ones");
  std::vector<std::string> names;
  std::string all;
  for (const DatasetInfo& row : table()) {
    if (row.name == name) return row;
    names.push_back(row.name);
    all += (all.empty() ? "" : " ") + row.name;
  }
  throw UsageError(
      str("unknown dataset \"", name, "\"", did_you_mean(name, names), " (known: ", all, ")"));
}

}  // namespace

Tensor Normalization::mean_tensor() const { return as_f32(mean); }
Tensor Normalization::std_tensor() const { return as_f32(std); }

std::vector<std::string> dataset_names() {
  std::vector<std::string> out;
  for (const DatasetInfo& row : table()) out.push_back(row.name);
  return out;
}

DatasetInfo dataset_info(const std::string& name) { return find(name); }

Normalization dataset_pixels(const std::string& name) {
  if (name == "cifar10") return {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};
  if (name == "cifar100") return {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}};
  if (name == "tiny-imagenet") return {{0.4802, 0.4481, 0.3975}, {0.2770, 0.2691, 0.2821}};
  if (name == "mnist" || name == "fashion-mnist") return find(name).normalization;
  return {};
}

bool has_image_files(const std::string& name) {
  return name == "imagefolder" || name == "tiny-imagenet";
}

std::string dataset_default_dir(const std::string& name) {
  std::vector<std::string> roots;
  if (const char* set = std::getenv("MTCKI_DATA_DIR"); set && *set) roots.emplace_back(set);
  roots.emplace_back("data");
  roots.emplace_back(MTCKI_SOURCE_DIR "/data");
  const std::vector<std::string> names = folder_names(name);
  std::error_code ignored;
  for (const std::string& root : roots)
    for (const std::string& n : names)
      if (std::filesystem::is_directory(root + "/" + n, ignored)) return root + "/" + n;
  return roots[0] + "/" + name;  // where "mtcki data get" would put it
}

ImageSet load_dataset(const DatasetSpec& spec) {
  const DatasetInfo& info = find(spec.name);
  if (spec.split != "train" && spec.split != "test")
    throw UsageError(
        str("dataset \"", spec.name, "\": split is train or test, not \"", spec.split, "\""));
  if (spec.limit < 0) throw UsageError(str("dataset limit ", spec.limit, ": must not be negative"));
  const std::string dir = spec.dir.empty() ? dataset_default_dir(spec.name) : spec.dir;
  if (spec.size != 0 && !has_image_files(spec.name))
    throw UsageError(str("dataset \"", spec.name, "\": its images have one size, ", info.image_size,
                         " x ", info.image_size, "; a size is for imagefolder and tiny-imagenet"));
  if (spec.fit != "crop" && spec.fit != "pad")
    throw UsageError(str("dataset fit \"", spec.fit, "\": must be crop or pad"));
  if (spec.channels != 0 && spec.channels != 3 &&
      (spec.channels != 1 || spec.name != "imagefolder"))
    throw UsageError(str("dataset \"", spec.name, "\": channels ", spec.channels,
                         ": imagefolder is read with 1 or 3, the other sets as they are"));
  FolderOptions files;
  files.limit = spec.limit;
  files.size = spec.size;
  files.fit = spec.fit == "pad" ? Fit::pad : Fit::crop;
  files.channels = spec.channels == 1 ? 1 : 3;
  files.skip_bad = spec.skip_bad;
  files.file_order = spec.class_order == "file";
  ImageSet set;
  if (spec.name == "cifar10" || spec.name == "cifar100") {
    set = load_cifar(dir, spec.split, spec.name == "cifar100");
  } else if (spec.name == "mnist" || spec.name == "fashion-mnist") {
    set = load_mnist(dir, spec.split, spec.name == "fashion-mnist");
  } else if (spec.name == "tiny-imagenet") {
    set = load_tiny_imagenet(dir, spec.split, files);
  } else if (spec.name == "imagefolder") {
    set = load_image_folder(dir, spec.split, files);
  } else {
    set = make_synth10(spec.split, spec.limit, spec.seed, info.channels);
  }
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

// MNIST and Fashion-MNIST: four idx files, plain or gzip.
#include "data/formats/file_bytes.h"
#include "data/sets/idx.h"
#include "data/sets/rows.h"

namespace mtcki::data {

namespace {

constexpr int64_t kMostBytes = int64_t{48} << 20;  // 60,000 images have 45 MiB

// Where a file lies below `dir`, with or without .gz, here or in torchvision's raw/; or nothing.
// Mirrors call it train-images.idx3-ubyte, too. torchvision puts both sets into one folder.
std::string place_of(const std::string& dir, const std::string& stem, bool fashion) {
  std::string dotted = stem;
  dotted[stem.find("-idx")] = '.';
  for (const char* sub : {"", "raw/", fashion ? "FashionMNIST/raw/" : "MNIST/raw/"})
    for (const std::string& name : {stem, dotted})
      for (const char* end : {".gz", ""})
        if (const std::string path = sub + name + end; file_exists(dir + "/" + path)) return path;
  return "";
}

std::string find_file(const std::string& dir, const std::string& stem, bool fashion) {
  if (const std::string place = place_of(dir, stem, fashion); !place.empty())
    return dir + "/" + place;
  throw_data_error(dir + "/" + stem + ".gz", -1, "the files of the set", "none",
                   str("run \"mtcki data get ", fashion ? "fashion-mnist" : "mnist", "\""));
}

ImageSet load_mnist(const std::string& dir, const std::string& split, bool fashion) {
  const std::string stem = split == "train" ? "train" : "t10k";
  const std::string image_path = find_file(dir, stem + "-images-idx3-ubyte", fashion);
  const std::string label_path = find_file(dir, stem + "-labels-idx1-ubyte", fashion);
  const Tensor images = read_idx(image_path, kMostBytes);
  const Tensor labels = read_idx(label_path, kMostBytes);
  if (images.rank() != 3 || images.dtype() != DType::u8 || images.size(1) != 28 ||
      images.size(2) != 28)
    throw_data_error(image_path, -1, "u8 images [N, 28, 28]", images.describe(),
                     "is this the images file?");
  if (labels.rank() != 1 || labels.dtype() != DType::u8 || labels.size(0) != images.size(0))
    throw_data_error(label_path, -1, str("u8 labels [", images.size(0), "]"), labels.describe(),
                     "images and labels must come from the same set");
  ImageSet set;
  const int64_t n = images.size(0);
  set.images = images.reshape({n, 1, 28, 28});
  set.labels = Tensor::empty({n}, DType::i64);
  const uint8_t* from = labels.data<uint8_t>();
  int64_t* to = set.labels.data<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    if (from[i] > 9)
      throw_data_error(label_path, 8 + i, "a label 0-9", str(int{from[i]}),
                       "the file is damaged, or of another set");
    to[i] = from[i];
  }
  if (fashion) {
    set.class_names = {"T-shirt/top", "trouser", "pullover", "dress", "coat",
                       "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};
  } else {
    for (int d = 0; d < 10; ++d) set.class_names.push_back(std::to_string(d));
  }
  return set;
}

std::vector<DataFile> mnist_files(bool fashion) {
  if (fashion)
    return {{"train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"},
            {"train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"},
            {"t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"},
            {"t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"}};
  return {{"train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"},
          {"train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432"},
          {"t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3"},
          {"t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"}};
}

std::vector<DataFile> mnist_files(const std::string& dir, bool fashion) {
  std::vector<DataFile> files = mnist_files(fashion);
  for (DataFile& f : files) {
    const std::string place = place_of(dir, f.path.substr(0, f.path.size() - 3), fashion);
    if (place.empty()) continue;
    if (!place.ends_with(".gz")) {
      // Unpacked files are as good; only the size of their content is known.
      const int64_t n = is_training_file(f.path) ? 60000 : 10000;
      f = {"", f.path.find("images") != std::string::npos ? 16 + n * 784 : 8 + n, ""};
    }
    f.path = place;
  }
  return files;
}

}  // namespace

DatasetRow mnist_row(bool fashion) {
  DatasetRow row;
  std::vector<std::string> hosts;
  if (fashion) {
    row.info = {"fashion-mnist",
                "Fashion-MNIST: 60,000 + 10,000 grey pieces of clothing 28x28, 10 classes",
                "https://github.com/zalandoresearch/fashion-mnist (shipped with this project)",
                1,
                28,
                10,
                {{0.2860}, {0.3530}}};
    row.folders = {"fashion-mnist", "fashion_mnist", "FashionMNIST"};
    hosts = {"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
             "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"};
  } else {
    row.info = {"mnist",
                "MNIST: 60,000 + 10,000 grey digits 28x28, 10 classes",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                1,
                28,
                10,
                {{0.1307}, {0.3081}}};
    row.folders = {"mnist", "MNIST"};
    hosts = {"https://ossci-datasets.s3.amazonaws.com/mnist/",
             "https://storage.googleapis.com/cvdf-datasets/mnist/"};
  }
  row.pixels = row.info.normalization;
  row.load = [fashion](const std::string& dir, const DatasetSpec& spec) {
    return load_mnist(dir, spec.split, fashion);
  };
  row.files = [fashion](const std::string& dir) { return mnist_files(dir, fashion); };
  for (const DataFile& f : mnist_files(fashion)) {
    row.downloads.push_back({f, {}});
    for (const std::string& host : hosts) row.downloads.back().urls.push_back(host + f.path);
  }
  return row;
}

}  // namespace mtcki::data

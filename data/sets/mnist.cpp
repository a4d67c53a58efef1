#include "data/sets/mnist.h"

#include "data/formats/file_bytes.h"
#include "data/sets/idx.h"

namespace mtcki::data {

namespace {

constexpr int64_t kMostBytes = int64_t{48} << 20;  // 60,000 images have 45 MiB

// The name with or without .gz; torchvision unpacks into raw/.
std::string find_file(const std::string& dir, const std::string& stem, bool fashion) {
  for (const std::string& sub : {std::string(), std::string("/raw")})
    for (const std::string& end : {std::string(".gz"), std::string()})
      if (const std::string path = dir + sub + "/" + stem + end; file_exists(path)) return path;
  throw_data_error(dir + "/" + stem + ".gz", -1, "the files of the set", "none",
                   str("run \"mtcki data get ", fashion ? "fashion-mnist" : "mnist", "\""));
}

}  // namespace

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
      throw_data_error(label_path, 8 + i, "a label 0-9", str(int{from[i]}), "the file is damaged");
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

}  // namespace mtcki::data

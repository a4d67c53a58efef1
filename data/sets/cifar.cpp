#include "data/sets/cifar.h"

#include <cstring>
#include <sstream>

#include "data/sets/rows.h"
#include "tensor/ops/index.h"

namespace mtcki::data {

namespace {

constexpr int64_t kPixels = 3 * 32 * 32;

const char* const kCifar10Names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                     "dog",      "frog",       "horse", "ship", "truck"};

// One name per line; the built-in names, or numbers, when the file is not there.
std::vector<std::string> class_names(const std::string& dir, bool cifar100) {
  const std::string path = dir + (cifar100 ? "fine_label_names.txt" : "batches.meta.txt");
  const size_t count = cifar100 ? 100 : 10;
  std::vector<std::string> names;
  if (file_exists(path)) {
    const MappedFile file(path);
    std::istringstream in{std::string(as_text(file.bytes()))};
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) names.push_back(line);
    }
  }
  if (names.size() == count) return names;
  names.clear();
  for (size_t i = 0; i < count; ++i)
    names.push_back(cifar100 ? "class " + std::to_string(i) : kCifar10Names[i]);
  return names;
}

LabelledImages join(const std::vector<LabelledImages>& parts) {
  std::vector<Tensor> images, labels;
  for (const LabelledImages& p : parts) {
    images.push_back(p.images);
    labels.push_back(p.labels);
  }
  return {cat(images), cat(labels)};
}

// The binary members have fixed sizes and no published md5; the Python ones have an md5.
std::vector<DataFile> cifar_files(bool cifar100, bool python) {
  if (cifar100 && python)
    return {{"train", -1, "16019d7e3df5f24257cddd939b257f8d"},
            {"test", -1, "f0ef6b0ae62326f3e7ffdfab6717acfc"}};
  if (cifar100) return {{"train.bin", 153'700'000, ""}, {"test.bin", 30'740'000, ""}};
  if (python)
    return {{"data_batch_1", -1, "c99cafc152244af753f735de768cd75f"},
            {"data_batch_2", -1, "d4bba439e000b95fd0a9bffe97cbabec"},
            {"data_batch_3", -1, "54ebc095f3ab1f0389bbae665268c751"},
            {"data_batch_4", -1, "634d18415352ddfa80567beed471001a"},
            {"data_batch_5", -1, "482c414d41f54cd18b22e5b47cb7c3cb"},
            {"test_batch", -1, "40351d587109b95175f43aff81a1287e"}};
  std::vector<DataFile> out;
  for (int i = 1; i <= 5; ++i) out.push_back({str("data_batch_", i, ".bin"), 30'730'000, ""});
  out.push_back({"test_batch.bin", 30'730'000, ""});
  return out;
}

// Where the files of a set may lie below its folder, and in which form.
struct Place {
  std::string sub;
  bool python;
};
std::vector<Place> places(bool cifar100) {
  return {{"", false},
          {cifar100 ? "cifar-100-binary/" : "cifar-10-batches-bin/", false},
          {"", true},
          {cifar100 ? "cifar-100-python/" : "cifar-10-batches-py/", true}};
}

std::vector<std::string> file_names(bool python, bool cifar100, bool train) {
  std::vector<std::string> out;
  for (const DataFile& f : cifar_files(cifar100, python))
    if (is_training_file(f.path) == train) out.push_back(f.path);
  return out;
}

// The set in `dir`, or in its usual subfolder; whichever form is there.
ImageSet load_cifar(const std::string& root, const std::string& split, bool cifar100) {
  const bool train = split == "train";
  for (const Place& place : places(cifar100)) {
    const std::string dir = root + "/" + place.sub;
    const std::vector<std::string> names = file_names(place.python, cifar100, train);
    // Any of the files decides the form, so that a missing one of five is named.
    bool any = false;
    for (const std::string& n : names) any = any || file_exists(dir + n);
    if (!any) continue;
    std::vector<LabelledImages> parts;
    for (const std::string& n : names) {
      const std::string path = dir + n;
      if (!file_exists(path))
        throw_data_error(path, -1, "this file beside the other batches", "none",
                         str("run \"mtcki data get ", cifar100 ? "cifar100" : "cifar10", "\""));
      const MappedFile file(path);
      parts.push_back(place.python
                          ? parse_cifar_pickle(file.bytes(), path, cifar100)
                          : parse_cifar_binary(file.bytes(), path, cifar100,
                                               cifar100 ? (train ? 50000 : 10000) : 10000));
    }
    const LabelledImages all = join(parts);
    ImageSet set;
    set.images = all.images;
    set.labels = all.labels;
    set.class_names = class_names(dir, cifar100);
    return set;
  }
  const std::string first = file_names(false, cifar100, train)[0];
  std::string hint = str("run \"mtcki data get ", cifar100 ? "cifar100" : "cifar10",
                         "\", or give the folder of the binary version");
  if (file_exists(root + "/" + first + ".xz")) hint = "unpack the files there: xz -dk *.xz";
  throw_data_error(root + "/" + first, -1, "the files of the set", "none", hint);
}

// All files of the form of which one is there; of the binary one in its subfolder if none is.
std::vector<DataFile> cifar_files(const std::string& dir, bool cifar100) {
  Place place = places(cifar100)[1];
  const auto is_here = [&](const Place& p) {
    for (const DataFile& f : cifar_files(cifar100, p.python))
      if (file_exists(dir + "/" + p.sub + f.path)) return true;
    return false;
  };
  for (const Place& p : places(cifar100))
    if (is_here(p)) {
      place = p;
      break;
    }
  std::vector<DataFile> files = cifar_files(cifar100, place.python);
  for (DataFile& f : files) f.path = place.sub + f.path;
  return files;
}

}  // namespace

LabelledImages parse_cifar_binary(Bytes content, const std::string& name, bool cifar100,
                                  int64_t expected_records) {
  const int64_t prefix = cifar100 ? 2 : 1, record = prefix + kPixels;
  const auto size = static_cast<int64_t>(content.size());
  if (expected_records >= 0 ? size != expected_records * record : size % record != 0) {
    const std::string kind = recognise(content);
    throw_data_error(name, -1,
                     expected_records >= 0 ? str(expected_records * record, " bytes")
                                           : str("a multiple of ", record, " bytes"),
                     str(size, kind.empty() ? "" : ": ", kind),
                     "the file is truncated or of another kind: fetch it again");
  }
  const int64_t n = size / record;
  LabelledImages out{Tensor::empty({n, 3, 32, 32}, DType::u8), Tensor::empty({n}, DType::i64)};
  uint8_t* pixels = out.images.data<uint8_t>();
  int64_t* labels = out.labels.data<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t* p = content.data() + i * record;
    if (cifar100 && p[0] > 19)
      throw_data_error(name, i * record, str("a coarse label 0-19 in record ", i), str(int{p[0]}),
                       "the file is damaged");
    const int label = p[prefix - 1], most = cifar100 ? 99 : 9;
    if (label > most)
      throw_data_error(name, i * record + prefix - 1, str("a label 0-", most, " in record ", i),
                       str(label), "the file is damaged");
    labels[i] = label;
    std::memcpy(pixels + i * kPixels, p + prefix, kPixels);
  }
  return out;
}

DatasetRow cifar_row(bool cifar100) {
  DatasetRow row;
  const std::string source =
      "https://www.cs.toronto.edu/~kriz/cifar.html (binary or Python version)";
  const std::string url = "https://www.cs.toronto.edu/~kriz/";
  if (cifar100) {
    row.info = {
        "cifar100", "CIFAR-100: 50,000 + 10,000 colour images 32x32, 100 classes", source, 3, 32,
        100,        {{0.5071, 0.4867, 0.4408}, {0.2675, 0.2565, 0.2761}}};
    row.pixels = {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}};
    row.folders = {"cifar100", "cifar-100", "cifar-100-binary", "cifar-100-python"};
    row.downloads = {{{"cifar-100-binary.tar.gz", -1, "03b5dce01913d631647c71ecec9e9cb8"},
                      {url + "cifar-100-binary.tar.gz"},
                      DataDownload::Unpack::tar}};
  } else {
    row.info = {
        "cifar10", "CIFAR-10: 50,000 + 10,000 colour images 32x32, 10 classes", source, 3, 32,
        10,        {{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}}};
    row.pixels = {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};
    row.folders = {"cifar10", "cifar-10", "cifar-10-batches-bin", "cifar-10-batches-py"};
    row.downloads = {{{"cifar-10-binary.tar.gz", -1, "c32a1d4ab5d03f1284b67883e8d87530"},
                      {url + "cifar-10-binary.tar.gz"},
                      DataDownload::Unpack::tar}};
  }
  row.load = [cifar100](const std::string& dir, const DatasetSpec& spec) {
    return load_cifar(dir, spec.split, cifar100);
  };
  row.files = [cifar100](const std::string& dir) { return cifar_files(dir, cifar100); };
  return row;
}

}  // namespace mtcki::data

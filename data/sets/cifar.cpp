#include "data/sets/cifar.h"

#include <cstring>
#include <sstream>

namespace mtcki::data {

namespace {

constexpr int64_t kPixels = 3 * 32 * 32;

const char* const kCifar10Names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                     "dog",      "frog",       "horse", "ship", "truck"};

// One name per line; the built-in names, or numbers, when the file is not there.
std::vector<std::string> class_names(const std::string& dir, bool cifar100) {
  const std::string path = dir + (cifar100 ? "/fine_label_names.txt" : "/batches.meta.txt");
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
  if (parts.size() == 1) return parts[0];
  int64_t n = 0;
  for (const LabelledImages& p : parts) n += p.labels.numel();
  LabelledImages out{Tensor::empty({n, 3, 32, 32}, DType::u8), Tensor::empty({n}, DType::i64)};
  int64_t at = 0;
  for (const LabelledImages& p : parts) {
    std::memcpy(out.images.data<uint8_t>() + at * kPixels, p.images.raw(), p.images.nbytes());
    std::memcpy(out.labels.data<int64_t>() + at, p.labels.raw(), p.labels.nbytes());
    at += p.labels.numel();
  }
  return out;
}

std::vector<std::string> file_names(bool python, bool cifar100, bool train) {
  if (cifar100) return {std::string(train ? "train" : "test") + (python ? "" : ".bin")};
  const std::string end = python ? "" : ".bin";
  if (!train) return {"test_batch" + end};
  std::vector<std::string> out;
  for (int i = 1; i <= 5; ++i) out.push_back("data_batch_" + std::to_string(i) + end);
  return out;
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

ImageSet load_cifar(const std::string& root, const std::string& split, bool cifar100) {
  const bool train = split == "train";
  struct Place {
    std::string dir;
    bool python;
  };
  const Place places[] = {
      {root, false},
      {root + (cifar100 ? "/cifar-100-binary" : "/cifar-10-batches-bin"), false},
      {root, true},
      {root + (cifar100 ? "/cifar-100-python" : "/cifar-10-batches-py"), true}};
  for (const Place& place : places) {
    const std::vector<std::string> names = file_names(place.python, cifar100, train);
    // Any of the files decides the form, so that a missing one of five is named.
    bool any = false;
    for (const std::string& n : names) any = any || file_exists(place.dir + "/" + n);
    if (!any) continue;
    std::vector<LabelledImages> parts;
    for (const std::string& n : names) {
      const std::string path = place.dir + "/" + n;
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
    set.class_names = class_names(place.dir, cifar100);
    return set;
  }
  const std::string first = file_names(false, cifar100, train)[0];
  std::string hint = str("run \"mtcki data get ", cifar100 ? "cifar100" : "cifar10",
                         "\", or give the folder of the binary version");
  if (file_exists(root + "/" + first + ".xz")) hint = "unpack the files there: xz -dk *.xz";
  throw_data_error(root + "/" + first, -1, "the files of the set", "none", hint);
}

}  // namespace mtcki::data

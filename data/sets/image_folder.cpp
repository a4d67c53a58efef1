#include "data/sets/image_folder.h"

#include <algorithm>
#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/image_tree.h"
#include "data/sets/rows.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

std::vector<std::string> folders_in(const std::string& dir) {
  ImageTree tree;
  return fs::is_directory(dir) ? tree.classes(dir) : std::vector<std::string>();
}

// Where a split lies: other names stand for "test" when it is not there or has no classes.
std::string split_folder(const std::string& root, const std::string& split, ImageSet* set) {
  std::vector<std::string> names{split};
  if (split == "test") names.insert(names.end(), {"val", "valid", "validation", "testing"});
  if (split == "train") names.emplace_back("training");
  std::string all;
  for (const std::string& name : names) {
    const std::string dir = root + "/" + name;
    all += (all.empty() ? "" : ", ") + name;
    if (folders_in(dir).empty()) continue;
    if (name != split)
      add_note(set, str("its ", split, " images are those of ", name, "/",
                        fs::is_directory(root + "/" + split)
                            ? str(", as ", split, "/ has no folders of classes")
                            : ""));
    return dir;
  }
  std::string found;
  for (const std::string& name : folders_in(root))
    if (found.size() < 100) found += (found.empty() ? "" : ", ") + name;
  const std::string dir = root + "/" + split;
  const bool flat = fs::is_directory(dir);
  throw_data_error(flat ? dir : root, -1, "one folder per class in one called " + all,
                   flat            ? "a folder without any"
                   : found.empty() ? "no folders"
                                   : "the folders " + found,
                   str("put the images into ", split, "/<class>/*.png or .jpg",
                       flat ? " (labels in a table are not read)" : ""));
}

// As numbers where names hold some, as text otherwise: class2 before class10.
bool by_number(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return static_cast<uint8_t>(a[i]) < static_cast<uint8_t>(b[j]);
      ++i, ++j;
      continue;
    }
    const auto number = [&digit](const std::string& s, size_t* at) {
      const size_t begin = std::min(s.find_first_not_of('0', *at), s.size());
      for (*at = begin; *at < s.size() && digit(s[*at]);) ++*at;
      return s.substr(begin, *at - begin);
    };
    const std::string x = number(a, &i), y = number(b, &j);
    if (x != y) return x.size() != y.size() ? x.size() < y.size() : x < y;
  }
  return a.size() - i != b.size() - j ? a.size() - i < b.size() - j : a < b;
}

// Folders called 0 to 11 are the field's classic: as text, 10 comes before 2.
void order_classes(bool numbers, ImageSet* set) {
  std::vector<std::string> ordered = set->class_names;
  std::sort(ordered.begin(), ordered.end(), by_number);
  if (ordered == set->class_names) return;
  if (numbers) {
    set->class_names = ordered;
    return;
  }
  std::string first;
  for (size_t i = 0; i < std::min<size_t>(4, ordered.size()); ++i)
    first += set->class_names[i] + ", ";
  add_note(set,
           "classes are numbered in the order of their folders' names as text, as "
           "torchvision's ImageFolder does (" +
               first +
               "...); for a network that was trained "
               "on them as numbers: data.class_order = \"number\" (mtcki eval: --class-order)");
}

// What the one has and the other lacks, by name.
std::string class_difference(const std::vector<std::string>& here,
                             const std::vector<std::string>& train) {
  for (const std::string& name : here)
    if (!std::binary_search(train.begin(), train.end(), name))
      return str("also \"", name, "\", of ", here.size());
  for (const std::string& name : train)
    if (!std::binary_search(here.begin(), here.end(), name))
      return str("no \"", name, "\" among ", here.size());
  return "";
}

ImageSet folder_set(const std::string& root, const std::string& split, const FolderOptions& o) {
  ImageTree tree;
  ImageSet set;
  const std::string dir = split_folder(root, split, &set);
  set.class_names = tree.classes(dir);
  // Read as a folder of classes, Tiny-ImageNet's own layout would give one class and 0.5 % accuracy
  // without an error.
  const bool unsorted = set.class_names == std::vector<std::string>{"images"};
  if (unsorted && (file_exists(dir + "/val_annotations.txt") || file_exists(root + "/wnids.txt")))
    throw_data_error(dir, -1, "one folder per class", "the single folder \"images\"",
                     "this is Tiny-ImageNet: use dataset tiny-imagenet, which reads it as it is");
  for (const std::string& train : {root + "/train", root + "/training"}) {
    if (split == "train" || !fs::is_directory(train)) continue;
    const std::string other = class_difference(set.class_names, folders_in(train));
    if (!other.empty())
      throw_data_error(dir, -1, str("the classes of ", train), other,
                       "train and test must have the same class folders");
  }
  order_classes(o.number_order, &set);
  if (set.class_names.size() == 1)
    add_note(&set, str("its only class is \"", set.class_names[0], "\": nothing to tell apart"));
  std::vector<Sample> samples;
  for (size_t c = 0; c < set.class_names.size(); ++c) {
    const std::string class_dir = dir + "/" + set.class_names[c];
    const std::vector<std::string> files = tree.images(class_dir);
    if (files.empty())
      throw_data_error(class_dir, -1, "images (.png .jpg .jpeg) in every class", "none",
                       "add images or remove the folder");
    for (const std::string& f : files) samples.push_back({f, static_cast<int64_t>(c)});
  }
  set.class_ids = set.class_names;
  thin(&samples, o.limit);
  decode_all(samples, o, &set);
  add_note(&set, tree.note());
  return set;
}

}  // namespace

ImageSet load_image_folder(const std::string& dir, const std::string& split,
                           const FolderOptions& options) {
  try {
    return folder_set(dir, split, options);
  } catch (const fs::filesystem_error& e) {
    throw DataError(str("\"", dir, "\": cannot be read: ", e.code().message()));
  }
}

FolderOptions folder_options(const DatasetSpec& spec) {
  FolderOptions o;
  o.limit = spec.limit;
  o.size = spec.size;
  o.fit = spec.fit == "pad" ? Fit::pad : Fit::crop;
  o.channels = spec.channels == 1 ? 1 : 3;
  o.skip_bad = spec.skip_bad;
  o.file_order = spec.class_order == "file";
  o.number_order = spec.class_order == "number";
  return o;
}

DatasetRow image_folder_row() {
  DatasetRow row;
  row.info = {"imagefolder",
              "your own PNG or JPEG images: DIR/train/<class>/*, DIR/test/<class>/*; data.size for "
              "mixed sizes",
              "a folder of yours (--data-dir)",
              3,
              0,
              0,
              {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}};  // of ImageNet
  row.info.image_files = true;
  row.folders = {"imagefolder"};
  row.load = [](const std::string& dir, const DatasetSpec& spec) {
    return load_image_folder(dir, spec.split, folder_options(spec));
  };
  return row;
}

}  // namespace mtcki::data

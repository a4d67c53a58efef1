#include "data/sets/image_folder.h"

#include <algorithm>
#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/image_tree.h"
#include "data/sets/rows.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

// Where a split lies; "val" stands for "test" when that is not there.
std::string split_folder(const std::string& root, const std::string& split) {
  const std::string dir = root + "/" + split;
  if (split == "test" && !fs::is_directory(dir) && fs::is_directory(root + "/val"))
    return root + "/val";
  if (!fs::is_directory(dir))
    throw_data_error(dir, -1, "a folder", "none",
                     str("an image folder holds ", split, "/<class>/*.png or .jpg"));
  return dir;
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
  const std::string dir = split_folder(root, split);
  ImageTree tree;
  ImageSet set;
  set.class_names = tree.classes(dir);
  // Read as a folder of classes, Tiny-ImageNet's own layout would give one class and 0.5 % accuracy
  // without an error.
  const bool unsorted = set.class_names == std::vector<std::string>{"images"};
  if (unsorted && (file_exists(dir + "/val_annotations.txt") || file_exists(root + "/wnids.txt")))
    throw_data_error(dir, -1, "one folder per class", "the single folder \"images\"",
                     "this is Tiny-ImageNet: use dataset tiny-imagenet, which reads it as it is");
  if (set.class_names.empty()) throw_data_error(dir, -1, "one folder per class", "no folders");
  if (split != "train" && fs::is_directory(root + "/train")) {
    ImageTree train;
    const std::string other = class_difference(set.class_names, train.classes(root + "/train"));
    if (!other.empty())
      throw_data_error(dir, -1, str("the classes of ", root, "/train"), other,
                       "train and test must have the same class folders");
  }
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

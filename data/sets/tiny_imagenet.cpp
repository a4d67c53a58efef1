// Tiny-ImageNet as Stanford packs it and as the usual scripts leave it.
#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "data/sets/image_folder.h"
#include "data/sets/image_tree.h"
#include "data/sets/rows.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

constexpr char kAgain[] = "the set is incomplete: unpack the archive again";

std::vector<std::string> lines_of(const std::string& path) {
  const MappedFile file(path);
  std::istringstream in{std::string(as_text(file.bytes()))};
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) out.push_back(line);
  }
  return out;
}

class Reader {
 public:
  Reader(const std::string& dir, const FolderOptions& options) : o_(options) {
    for (const std::string& at : {dir, dir + "/tiny-imagenet-200"})
      if (dir_.empty() && (file_exists(at + "/wnids.txt") || fs::is_directory(at + "/train")))
        dir_ = at;
    if (dir_.empty())
      throw_data_error(dir + "/wnids.txt", -1, "the files of tiny-imagenet-200.zip", "none",
                       "run \"mtcki data get tiny-imagenet\"");
    read_ids();
  }

  ImageSet read(const std::string& split) {
    ImageSet set;
    const std::map<std::string, std::string> words = read_words();
    for (const std::string& id : ids_)
      set.class_names.push_back(words.count(id) ? words.at(id) : id);
    set.class_ids = ids_;
    set.listed_ids = listed_;
    std::vector<Sample> samples = split == "train" ? by_folder(dir_ + "/train") : validation();
    thin(&samples, o_.limit);
    decode_all(samples, o_, &set);
    add_note(&set, tree_.note());
    return set;
  }

 private:
  // Mirrors drop wnids.txt now and then; the folders have the same names.
  void read_ids() {
    const std::string list = dir_ + "/wnids.txt";
    const bool listed = file_exists(list);
    if (listed)
      listed_ = lines_of(list);
    else if (o_.file_order)
      throw_data_error(list, -1, "the order of the classes", "none",
                       "data.class_order=file needs this file");
    ids_ = listed ? listed_ : ImageTree().classes(dir_ + "/train");
    std::sort(ids_.begin(), ids_.end());
    if (ids_.empty() || std::adjacent_find(ids_.begin(), ids_.end()) != ids_.end())
      throw_data_error(listed ? list : dir_ + "/train", -1, "distinct class ids",
                       "repeated or none", "the file is damaged");
    if (o_.file_order) ids_ = listed_;
    for (const std::string& id : ids_)
      label_of_.emplace(id, static_cast<int64_t>(label_of_.size()));
  }

  std::map<std::string, std::string> read_words() const {
    std::map<std::string, std::string> words;
    if (!file_exists(dir_ + "/words.txt")) return words;
    for (const std::string& line : lines_of(dir_ + "/words.txt")) {
      const size_t tab = line.find('\t');
      if (tab == std::string::npos) continue;
      words[line.substr(0, tab)] = line.substr(tab + 1, line.find(',', tab) - tab - 1);
    }
    return words;
  }

  std::vector<Sample> by_folder(const std::string& dir) {
    std::vector<Sample> samples;
    for (const std::string& id : ids_) {
      const std::string class_dir = dir + "/" + id;
      if (!fs::is_directory(class_dir)) throw_data_error(class_dir, -1, "a folder", "none", kAgain);
      const std::vector<std::string> files = tree_.images(class_dir);
      if (files.empty()) throw_data_error(class_dir, -1, "images", "none", kAgain);
      for (const std::string& f : files) samples.push_back({f, label_of_[id]});
    }
    return samples;
  }

  // val/images with val_annotations.txt, or val/<wnid> when a script has sorted it.
  std::vector<Sample> validation() {
    const std::string dir = dir_ + "/val", notes = dir + "/val_annotations.txt";
    if (!fs::is_directory(dir)) throw_data_error(dir, -1, "a folder", "none", kAgain);
    std::vector<std::string> folders = ImageTree().classes(dir);
    std::erase(folders, "images");
    const std::string flat = dir + "/images";
    const size_t unsorted = fs::is_directory(flat) ? ImageTree().images(flat).size() : 0;
    if (folders.empty() && file_exists(notes)) return annotated(notes);
    if (folders.empty())
      throw_data_error(notes, -1, "the classes of the validation images, or val/<wnid> folders",
                       "neither", kAgain);
    for (const std::string& name : folders)
      if (!label_of_.count(name))
        throw_data_error(dir + "/" + name, -1, "a class of the training set", "another folder",
                         "move it away");
    if (unsorted > 0)
      throw_data_error(flat, -1, "no images left beside the class folders", str(unsorted),
                       "the sorting stopped half-way: move them into their class folders, or "
                       "unpack val/ again");
    return by_folder(dir);
  }

  std::vector<Sample> annotated(const std::string& notes) {
    std::vector<Sample> samples;
    int64_t number = 0;
    for (const std::string& line : lines_of(notes)) {  // file TAB wnid TAB box
      ++number;
      std::istringstream in(line);
      std::string file, id;
      if (!std::getline(in, file, '\t') || !std::getline(in, id, '\t') || !label_of_.count(id) ||
          file.find('/') != std::string::npos)
        throw_data_error(notes, -1, str("\"file TAB class\" of wnids.txt in line ", number),
                         line.substr(0, 80), "the file is damaged");
      samples.push_back({dir_ + "/val/images/" + file, label_of_[id]});
    }
    if (samples.empty()) throw_data_error(notes, -1, "lines", "none", kAgain);
    return samples;
  }

  std::string dir_;
  FolderOptions o_;
  std::vector<std::string> ids_, listed_;
  std::map<std::string, int64_t> label_of_;
  ImageTree tree_{/*texts_belong=*/true};  // <wnid>_boxes.txt
};

// Whether a folder holds others than "images".
bool has_class_folders(const std::string& dir) {
  std::error_code ec;
  for (fs::directory_iterator at(dir, ec), end; !ec && at != end; at.increment(ec))
    if (at->is_directory(ec) && at->path().filename() != "images") return true;
  return false;
}

std::vector<DataFile> tiny_imagenet_files(const std::string& dir) {
  const bool here = file_exists(dir + "/wnids.txt") || fs::is_directory(dir + "/train");
  const std::string sub = here ? "" : "tiny-imagenet-200/";
  // Neither is needed when the folders of both parts are named after the classes.
  std::vector<DataFile> files;
  for (const auto& [file, part] :
       {std::pair{"wnids.txt", "train"}, {"val/val_annotations.txt", "val"}})
    if (file_exists(dir + "/" + sub + file) || !has_class_folders(dir + "/" + sub + part))
      files.push_back({sub + file, -1, ""});
  return files;
}

}  // namespace

ImageSet load_tiny_imagenet(const std::string& dir, const std::string& split,
                            const FolderOptions& options) {
  try {
    return Reader(dir, options).read(split);
  } catch (const fs::filesystem_error& e) {
    throw DataError(str("\"", dir, "\": cannot be read: ", e.code().message()));
  }
}

DatasetRow tiny_imagenet_row() {
  DatasetRow row;
  const std::string url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip";
  row.info = {"tiny-imagenet",
              "Tiny-ImageNet: 100,000 + 10,000 colour images 64x64, 200 classes",
              url,
              3,
              64,
              200,
              {{0.4802, 0.4481, 0.3975}, {0.2302, 0.2265, 0.2262}}};
  row.info.image_files = true;
  row.pixels = {{0.4802, 0.4481, 0.3975}, {0.2770, 0.2691, 0.2821}};
  row.folders = {"tiny-imagenet", "tiny-imagenet-200"};
  row.load = [](const std::string& dir, const DatasetSpec& spec) {
    return load_tiny_imagenet(dir, spec.split, folder_options(spec));
  };
  row.files = tiny_imagenet_files;
  row.downloads = {{{"tiny-imagenet-200.zip", 248'100'043, "90528d7ca1a48142e341f4ef8d21d0de"},
                    {url},
                    DataDownload::Unpack::zip}};
  return row;
}

}  // namespace mtcki::data

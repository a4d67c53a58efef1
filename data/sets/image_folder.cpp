#include "data/sets/image_folder.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "data/formats/image_file.h"
#include "tensor/parallel.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

struct Sample {
  std::string path;
  int64_t label = 0;
};

bool is_image_name(const fs::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* known :
       {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
    if (end == known) return true;
  return false;
}

std::vector<std::string> subfolders(const std::string& dir) {
  std::vector<std::string> out;
  for (const fs::directory_entry& e : fs::directory_iterator(dir))
    if (e.is_directory()) out.push_back(e.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> images_below(const std::string& dir) {
  std::vector<std::string> out;
  for (const fs::directory_entry& e : fs::recursive_directory_iterator(dir))
    if (e.is_regular_file() && is_image_name(e.path())) out.push_back(e.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

// Every k-th of the samples so that `limit` remain; the classes keep their shares.
void thin(std::vector<Sample>* samples, int64_t limit) {
  const auto n = static_cast<int64_t>(samples->size());
  if (limit <= 0 || n <= limit) return;
  std::vector<Sample> kept;
  for (int64_t i = 0; i < limit; ++i)
    kept.push_back((*samples)[static_cast<size_t>(i * n / limit)]);
  *samples = std::move(kept);
}

// "12 of 300 images were resized (40 x 30 ... 640 x 480) to 32 x 32".
std::string resize_note(const std::vector<std::pair<int64_t, int64_t>>& sizes, int64_t n, Fit fit) {
  int64_t changed = 0;
  auto least = sizes[0], most = sizes[0];  // by area
  const auto area = [](const auto& s) { return s.first * s.second; };
  for (const auto& s : sizes) {
    changed += s.first != n || s.second != n;
    if (area(s) < area(least)) least = s;
    if (area(s) > area(most)) most = s;
  }
  if (changed == 0) return "";
  return str(changed, " of ", sizes.size(), " images (", least.first, " x ", least.second, " to ",
             most.first, " x ", most.second, ") became ", n, " x ", n, ": ",
             fit == Fit::crop ? "centre square" : "padded with black", ", bilinear");
}

// Decodes all. Without options.size the size of the first image counts for all.
void decode_all(const std::vector<Sample>& samples, const FolderOptions& o, ImageSet* set) {
  const Tensor first = read_image(samples[0].path);
  const bool fitted = o.size > 0;
  const int64_t h = fitted ? o.size : first.size(1), w = fitted ? o.size : first.size(2);
  const int64_t n = static_cast<int64_t>(samples.size()), image = 3 * h * w;
  set->images = Tensor::empty({n, 3, h, w}, DType::u8);
  set->labels = Tensor::empty({n}, DType::i64);
  std::vector<std::string> problems(samples.size());
  std::vector<std::pair<int64_t, int64_t>> sizes(samples.size());  // width, height
  uint8_t* out = set->images.data<uint8_t>();
  int64_t* labels = set->labels.data<int64_t>();
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Sample& s = samples[static_cast<size_t>(i)];
      labels[i] = s.label;
      try {
        Tensor t = read_image(s.path);
        sizes[static_cast<size_t>(i)] = {t.size(2), t.size(1)};
        if (fitted) t = resize_to_square(t, o.size, o.fit);
        if (t.size(1) != h || t.size(2) != w)
          throw_data_error(s.path, -1,
                           str("an image of ", w, " x ", h, ", the size of the first one (",
                               samples[0].path, ")"),
                           str(t.size(2), " x ", t.size(1)),
                           "data.size=N brings all images to N x N (mtcki eval: --data-size N)");
        std::memcpy(out + i * image, t.raw(), static_cast<size_t>(image));
      } catch (const Error& e) {
        problems[static_cast<size_t>(i)] = e.what();
        return;
      }
    }
  });
  for (const std::string& p : problems)
    if (!p.empty()) throw DataError(p);
  if (fitted) set->note = resize_note(sizes, o.size, o.fit);
}

void need_folder(const std::string& dir, const std::string& next) {
  if (!fs::is_directory(dir)) throw_data_error(dir, -1, "a folder", "none", next);
}

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

ImageSet folder_set(const std::string& root, const std::string& split, const FolderOptions& o) {
  std::string dir = root + "/" + split;
  if (split == "test" && !fs::is_directory(dir) && fs::is_directory(root + "/val"))
    dir = root + "/val";
  need_folder(dir, str("an image folder holds ", split, "/<class>/*.png or .jpg"));
  // Read as a folder of classes, this layout would give one class and 0.5 % accuracy without an
  // error.
  if (file_exists(dir + "/val_annotations.txt"))
    throw_data_error(dir, -1, "one folder per class", "val_annotations.txt",
                     "this is Tiny-ImageNet: use dataset tiny-imagenet");
  ImageSet set;
  set.class_names = subfolders(dir);
  if (set.class_names.empty()) throw_data_error(dir, -1, "one folder per class", "no folders");
  if (split != "train" && fs::is_directory(root + "/train") &&
      subfolders(root + "/train") != set.class_names)
    throw_data_error(dir, -1, str("the classes of ", root, "/train"),
                     str(set.class_names.size(), " other ones"),
                     "train and test must have the same class folders");
  std::vector<Sample> samples;
  for (size_t c = 0; c < set.class_names.size(); ++c) {
    const std::string class_dir = dir + "/" + set.class_names[c];
    const std::vector<std::string> files = images_below(class_dir);
    if (files.empty())
      throw_data_error(class_dir, -1, "images (.png .jpg .jpeg) in every class", "none",
                       "add images or remove the folder");
    for (const std::string& f : files) samples.push_back({f, static_cast<int64_t>(c)});
  }
  thin(&samples, o.limit);
  decode_all(samples, o, &set);
  return set;
}

ImageSet tiny_imagenet_set(std::string dir, const std::string& split, const FolderOptions& o) {
  if (!file_exists(dir + "/wnids.txt") && file_exists(dir + "/tiny-imagenet-200/wnids.txt"))
    dir += "/tiny-imagenet-200";
  if (!file_exists(dir + "/wnids.txt"))
    throw_data_error(dir + "/wnids.txt", -1, "the files of tiny-imagenet-200.zip", "none",
                     "run \"mtcki data get tiny-imagenet\"");
  const std::vector<std::string> ids = lines_of(dir + "/wnids.txt");
  std::map<std::string, int64_t> label_of;
  for (const std::string& id : ids) label_of.emplace(id, static_cast<int64_t>(label_of.size()));
  if (label_of.size() != ids.size() || ids.empty())
    throw_data_error(dir + "/wnids.txt", -1, "distinct class ids", "repeated or none",
                     "the file is damaged");

  ImageSet set;
  std::map<std::string, std::string> words;
  if (file_exists(dir + "/words.txt"))
    for (const std::string& line : lines_of(dir + "/words.txt")) {
      const size_t tab = line.find('\t');
      if (tab == std::string::npos) continue;
      words[line.substr(0, tab)] = line.substr(tab + 1, line.find(',', tab) - tab - 1);
    }
  for (const std::string& id : ids) set.class_names.push_back(words.count(id) ? words[id] : id);

  std::vector<Sample> samples;
  if (split == "train") {
    for (const std::string& id : ids) {
      const std::string class_dir = dir + "/train/" + id;
      need_folder(class_dir, "the set is incomplete: unpack the archive again");
      const std::vector<std::string> files = images_below(class_dir);
      if (files.empty())
        throw_data_error(class_dir, -1, "images", "none", "unpack the archive again");
      for (const std::string& f : files) samples.push_back({f, label_of[id]});
    }
  } else {
    const std::string notes = dir + "/val/val_annotations.txt";
    if (!file_exists(notes))
      throw_data_error(notes, -1, "the classes of the validation images", "none",
                       "the set is incomplete: unpack the archive again");
    int64_t number = 0;
    for (const std::string& line : lines_of(notes)) {  // file TAB wnid TAB box
      ++number;
      std::istringstream in(line);
      std::string file, id;
      if (!std::getline(in, file, '\t') || !std::getline(in, id, '\t') || !label_of.count(id) ||
          file.find('/') != std::string::npos)
        throw_data_error(notes, -1, str("\"file TAB class\" of wnids.txt in line ", number),
                         line.substr(0, 80), "the file is damaged");
      samples.push_back({dir + "/val/images/" + file, label_of[id]});
    }
    if (samples.empty()) throw_data_error(notes, -1, "lines", "none", "unpack the archive again");
  }
  thin(&samples, o.limit);
  decode_all(samples, o, &set);
  return set;
}

template <class F>
ImageSet guarded(const std::string& dir, const F& f) {
  try {
    return f();
  } catch (const fs::filesystem_error& e) {
    throw DataError(str("\"", dir, "\": cannot be read: ", e.code().message()));
  }
}

}  // namespace

ImageSet load_image_folder(const std::string& dir, const std::string& split,
                           const FolderOptions& options) {
  return guarded(dir, [&] { return folder_set(dir, split, options); });
}

ImageSet load_tiny_imagenet(const std::string& dir, const std::string& split,
                            const FolderOptions& options) {
  return guarded(dir, [&] { return tiny_imagenet_set(dir, split, options); });
}

}  // namespace mtcki::data

#include "data/sets/image_tree.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <utility>

#include "data/formats/file_bytes.h"
#include "data/formats/image_file.h"
#include "tensor/parallel.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

constexpr int kMostDepth = 32;  // also ends a link that leads back up

bool is_hidden(const std::string& name) {
  return name.starts_with(".") || name == "__MACOSX" || name == "@eaDir" || name == "Thumbs.db" ||
         name == "desktop.ini";
}

bool is_text_name(const fs::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* known :
       {".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml", ".html", ".py", ".log"})
    if (end == known) return true;
  return false;
}

std::vector<fs::path> sorted_entries(const std::string& dir) {
  std::vector<fs::path> out;
  for (const fs::directory_entry& e : fs::directory_iterator(dir)) out.push_back(e.path());
  std::sort(out.begin(), out.end());
  return out;
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

struct Decoded {
  Tensor image;         // undefined: it could not be read
  std::string problem;  // why
  std::pair<int64_t, int64_t> size;
};

Decoded decode(const Sample& s, const FolderOptions& o) {
  Decoded out;
  try {
    out.image = read_image(s.path, static_cast<int>(o.channels));
    out.size = {out.image.size(2), out.image.size(1)};
    if (o.size > 0) out.image = resize_to_square(out.image, o.size, o.fit);
  } catch (const Error& e) {
    out.problem = e.what();
  }
  return out;
}

}  // namespace

void ImageTree::LeftOut::add(const std::string& name) {
  if (count++ == 0) first = name;
}

std::vector<std::string> ImageTree::classes(const std::string& dir) {
  std::vector<std::string> out;
  for (const fs::path& path : sorted_entries(dir)) {
    const std::string name = path.filename().string();
    if (is_hidden(name))
      hidden_.add(name);
    else if (fs::is_directory(path))
      out.push_back(name);
    else if (!fs::exists(path))  // a class, perhaps, without which the others have other numbers
      throw_data_error(path.string(), -1, "a folder or a file", "a link that leads nowhere",
                       "mount what it points to, or remove it");
    else
      beside_.add(name);
  }
  return out;
}

std::vector<std::string> ImageTree::images(const std::string& dir) {
  std::vector<std::string> out;
  collect(dir, 0, &out);
  std::sort(out.begin(), out.end());
  return out;
}

void ImageTree::collect(const std::string& dir, int depth, std::vector<std::string>* out) {
  if (depth > kMostDepth)
    throw_data_error(dir, -1, str("folders at most ", kMostDepth, " deep"), "deeper ones",
                     "is it a link that leads back to a folder above it?");
  for (const fs::path& path : sorted_entries(dir)) {
    const std::string name = path.filename().string();
    if (is_hidden(name))
      hidden_.add(name);
    else if (fs::is_directory(path))
      collect(path.string(), depth + 1, out);
    else if (!is_text_name(path))
      out->push_back(path.string());
    else if (!texts_belong_)
      texts_.add(name);
  }
}

std::string ImageTree::note() const {
  std::string out;
  const auto say = [&out](const LeftOut& what, const char* kind) {
    if (what.count > 0)
      out += str(out.empty() ? "left out: " : ", ", what.count, " ", kind, " (", what.first,
                 what.count > 1 ? ", ..." : "", ")");
  };
  say(hidden_, "hidden");
  say(texts_, texts_.count == 1 ? "text" : "texts");
  say(beside_, beside_.count == 1 ? "file beside the classes" : "files beside the classes");
  return out;
}

void thin(std::vector<Sample>* samples, int64_t limit) {
  const auto n = static_cast<int64_t>(samples->size());
  if (limit <= 0 || n <= limit) return;
  std::vector<Sample> kept;
  for (int64_t i = 0; i < limit; ++i)
    kept.push_back((*samples)[static_cast<size_t>(i * n / limit)]);
  *samples = std::move(kept);
}

void add_note(ImageSet* set, const std::string& text) {
  if (text.empty()) return;
  set->note += (set->note.empty() ? "" : "; ") + text;
}

void decode_all(const std::vector<Sample>& samples, const FolderOptions& o, ImageSet* set) {
  const auto n = static_cast<int64_t>(samples.size());
  // The first that can be read gives the size.
  int64_t first = 0, h = o.size, w = o.size;
  for (; h == 0 && first < n; ++first) {
    const Decoded d = decode(samples[static_cast<size_t>(first)], o);
    if (!d.image.defined() && first >= o.skip_bad) throw DataError(d.problem);
    if (!d.image.defined()) continue;
    h = d.image.size(1);
    w = d.image.size(2);
    break;
  }
  if (h == 0) throw DataError(str("\"", samples[0].path, "\": no image of the set can be read"));
  const int64_t image = o.channels * h * w;
  set->images = Tensor::empty({n, o.channels, h, w}, DType::u8);
  set->labels = Tensor::empty({n}, DType::i64);
  std::vector<std::string> problems(samples.size());
  std::vector<std::pair<int64_t, int64_t>> sizes(samples.size());  // width, height
  uint8_t* out = set->images.data<uint8_t>();
  int64_t* labels = set->labels.data<int64_t>();
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Sample& s = samples[static_cast<size_t>(i)];
      Decoded d = decode(s, o);
      labels[i] = s.label;
      sizes[static_cast<size_t>(i)] = d.size;
      if (d.image.defined() && (d.image.size(1) != h || d.image.size(2) != w))
        d.problem = str("\"", s.path, "\": expected an image of ", w, " x ", h,
                        ", the size of the first one (", samples[static_cast<size_t>(first)].path,
                        "), found ", d.image.size(2), " x ", d.image.size(1),
                        "; data.size=N brings all images to N x N (mtcki eval: --data-size N)");
      problems[static_cast<size_t>(i)] = d.problem;
      if (d.problem.empty())
        std::memcpy(out + i * image, d.image.raw(), static_cast<size_t>(image));
    }
  });
  int64_t kept = 0, bad = 0;
  std::string names;
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    if (!problems[at].empty()) {
      if (bad == o.skip_bad) throw DataError(problems[at]);
      if (++bad <= 3) names += (bad > 1 ? ", " : "") + samples[at].path;
      continue;
    }
    if (kept != i) {
      std::memmove(out + kept * image, out + i * image, static_cast<size_t>(image));
      labels[kept] = labels[i];
      sizes[static_cast<size_t>(kept)] = sizes[at];
    }
    ++kept;
  }
  if (bad > 0) {
    if (kept == 0)
      throw DataError(str("\"", samples[0].path, "\": no image of the set can be read"));
    set->images = set->images.slice(0, kept).clone();
    set->labels = set->labels.slice(0, kept).clone();
    sizes.resize(static_cast<size_t>(kept));
    add_note(set,
             str(bad, bad == 1 ? " file" : " files", " could not be read and ",
                 bad == 1 ? "was" : "were", " left out (", names, bad > 3 ? ", ..." : "", ")"));
  }
  if (o.size > 0) add_note(set, resize_note(sizes, o.size, o.fit));
}

}  // namespace mtcki::data

#include "data/sets/verify.h"

#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/sets/dataset.h"
#include "data/sets/digest.h"
#include "tensor/error.h"

namespace mtcki::data {

namespace fs = std::filesystem;

namespace {

const char* const kMnistHosts[] = {"https://ossci-datasets.s3.amazonaws.com/mnist/",
                                   "https://storage.googleapis.com/cvdf-datasets/mnist/"};
const char* const kFashionHosts[] = {
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"};

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

// Whether a folder holds others than "images".
bool has_class_folders(const std::string& dir) {
  std::error_code ec;
  for (fs::directory_iterator at(dir, ec), end; !ec && at != end; at.increment(ec))
    if (at->is_directory(ec) && at->path().filename() != "images") return true;
  return false;
}

// The files with the folder prefix under which they lie below `dir`.
std::vector<DataFile> expected_files(const std::string& name, const std::string& dir) {
  if (name == "mnist" || name == "fashion-mnist") {
    std::vector<DataFile> files = mnist_files(name == "fashion-mnist");
    for (DataFile& f : files) {
      // Unpacked files are as good; only the size of their content is known.
      const std::string plain = f.path.substr(0, f.path.size() - 3);
      for (const std::string& candidate : {f.path, "raw/" + f.path, plain, "raw/" + plain})
        if (file_exists(dir + "/" + candidate)) {
          const bool unpacked = !candidate.ends_with(".gz");
          const int64_t n = f.path.starts_with("train") ? 60000 : 10000;
          if (unpacked)
            f = {candidate, f.path.find("images") != std::string::npos ? 16 + n * 784 : 8 + n, ""};
          f.path = candidate;
          break;
        }
    }
    return files;
  }
  if (name == "cifar10" || name == "cifar100") {
    const bool cifar100 = name == "cifar100";
    const std::string subs[] = {"", cifar100 ? "cifar-100-binary/" : "cifar-10-batches-bin/", "",
                                cifar100 ? "cifar-100-python/" : "cifar-10-batches-py/"};
    std::string sub = subs[1];
    bool python = false, found = false;
    for (int i = 0; i < 4 && !found; ++i)
      for (const DataFile& f : cifar_files(cifar100, i >= 2))
        if (!found && file_exists(dir + "/" + subs[i] + f.path)) {
          sub = subs[i];
          python = i >= 2;
          found = true;
        }
    std::vector<DataFile> files = cifar_files(cifar100, python);
    for (DataFile& f : files) f.path = sub + f.path;
    return files;
  }
  if (name == "tiny-imagenet") {
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
  return {};
}

VerifyRow check(const DataFile& file, const std::string& dir) {
  VerifyRow row;
  row.expected = file;
  const std::string path = dir + "/" + file.path;
  if (!file_exists(path)) {
    row.status = FileStatus::missing;
    return row;
  }
  row.actual_bytes = static_cast<int64_t>(fs::file_size(path));
  if (!file.md5.empty()) row.actual_md5 = md5_file(path);
  if (file.bytes >= 0 && row.actual_bytes != file.bytes) {
    row.status = FileStatus::bad_size;
    const MappedFile content(path);
    row.note = recognise(content.bytes());
    return row;
  }
  if (!file.md5.empty() && row.actual_md5 != file.md5) {
    row.status = FileStatus::warning;
    row.note = "not the official file; it may still load";
  } else if (file.md5.empty()) {
    row.note = "no md5 is published for this file";
  }
  return row;
}

}  // namespace

const char* name_of(FileStatus status) {
  switch (status) {
    case FileStatus::ok:
      return "ok";
    case FileStatus::warning:
      return "differs";
    case FileStatus::bad_size:
      return "wrong size";
    case FileStatus::missing:
      return "missing";
  }
  return "";
}

VerifyReport verify_dataset(const std::string& name, const std::string& dir) {
  dataset_info(name);  // UsageError for an unknown name
  VerifyReport report;
  report.dataset = name;
  report.dir = dir.empty() ? dataset_default_dir(name) : dir;
  report.usable = true;
  for (const DataFile& file : expected_files(name, report.dir)) {
    report.rows.push_back(check(file, report.dir));
    const FileStatus s = report.rows.back().status;
    report.usable = report.usable && (s == FileStatus::ok || s == FileStatus::warning);
  }
  // A downloaded archive that still lies there is checked too, but nobody needs it.
  for (const DataDownload& d : dataset_downloads(name))
    if (d.unpack != DataDownload::Unpack::none && file_exists(report.dir + "/" + d.file.path))
      report.rows.push_back(check(d.file, report.dir));
  if (name == "imagefolder") {
    report.usable = fs::is_directory(report.dir);
    if (!report.usable)
      report.repair = "mkdir -p " + report.dir + "/train/<class> (and put images there)";
  } else if (!report.usable) {
    report.repair = "mtcki data get " + name + (dir.empty() ? "" : " --data-dir " + dir);
  }
  return report;
}

std::vector<std::string> missing_files(const std::string& name, const std::string& dir,
                                       const std::string& split) {
  std::vector<std::string> missing;
  for (const DataFile& file : expected_files(name, dir)) {
    const std::string leaf = fs::path(file.path).filename().string();
    const bool training = leaf.starts_with("train") || leaf.starts_with("data_batch");
    if (training == (split == "train") && !file_exists(dir + "/" + file.path))
      missing.push_back(file.path);
  }
  return missing;
}

std::vector<DataDownload> dataset_downloads(const std::string& name) {
  using Unpack = DataDownload::Unpack;
  dataset_info(name);
  std::vector<DataDownload> out;
  if (name == "mnist" || name == "fashion-mnist") {
    const bool fashion = name == "fashion-mnist";
    for (const DataFile& f : mnist_files(fashion)) {
      DataDownload d{f, {}, Unpack::none};
      for (const char* host : fashion ? kFashionHosts : kMnistHosts)
        d.urls.push_back(host + f.path);
      out.push_back(std::move(d));
    }
  } else if (name == "cifar10") {
    out.push_back({{"cifar-10-binary.tar.gz", -1, "c32a1d4ab5d03f1284b67883e8d87530"},
                   {"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"},
                   Unpack::tar});
  } else if (name == "cifar100") {
    out.push_back({{"cifar-100-binary.tar.gz", -1, "03b5dce01913d631647c71ecec9e9cb8"},
                   {"https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"},
                   Unpack::tar});
  } else if (name == "tiny-imagenet") {
    out.push_back({{"tiny-imagenet-200.zip", 248'100'043, "90528d7ca1a48142e341f4ef8d21d0de"},
                   {"http://cs231n.stanford.edu/tiny-imagenet-200.zip"},
                   Unpack::zip});
  }
  return out;
}

}  // namespace mtcki::data

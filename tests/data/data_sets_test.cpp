// Data sets: idx, CIFAR, Fashion-MNIST, folders, synth10; where they are found; verification.
#include <cstdlib>
#include <set>

#include "data/formats/image_file.h"
#include "data/sets/cifar.h"
#include "data/sets/dataset.h"
#include "data/sets/holdout.h"
#include "data/sets/idx.h"
#include "data/sets/image_folder.h"
#include "data/sets/verify.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using ::testing::AllOf;
using testing::fixture;
using testing::from_hex;
using ::testing::HasSubstr;
using testing::message_of;
using testing::read_all;
using testing::TempDir;
using testing::write_all_text;

TEST(Holdout, TheLastOrEveryKth) {
  ImageSet set;
  set.images = Tensor::from(std::vector<uint8_t>{0, 1, 2, 3, 4, 5}, {6, 1, 1, 1});
  set.labels = Tensor::from(std::vector<int64_t>{0, 0, 0, 1, 1, 1}, {6});
  const auto part = [&](bool spread, bool held) {
    const ImageSet p = holdout_part(set, 2, spread, held);
    EXPECT_EQ(p.size(), p.labels.size(0));
    return p.images.to_vector<uint8_t>();
  };
  EXPECT_EQ(part(false, true), (std::vector<uint8_t>{4, 5}));
  EXPECT_EQ(part(false, false), (std::vector<uint8_t>{0, 1, 2, 3}));
  EXPECT_EQ(part(true, true), (std::vector<uint8_t>{2, 5}));  // one of each class
  EXPECT_EQ(part(true, false), (std::vector<uint8_t>{0, 1, 3, 4}));
  EXPECT_EQ(holdout_part(set, 2, true, true).labels.to_vector<int64_t>(),
            (std::vector<int64_t>{0, 1}));
  for (const int64_t n : {0, 6})
    EXPECT_THAT(message_of<UsageError>([&] { holdout_part(set, n, false, true); }),
                HasSubstr("data.holdout"));
}

TEST(Idx, VectorAndTypes) {
  const auto parse = [](const std::string& hex) {
    const std::string s = from_hex(hex);
    return parse_idx(as_bytes(s), "f");
  };
  EXPECT_EQ(parse("00000801 00000003 070201").to_vector<uint8_t>(),
            (std::vector<uint8_t>{7, 2, 1}));
  EXPECT_EQ(parse("00000901 00000002 ff01").to_vector<int32_t>(), (std::vector<int32_t>{-1, 1}));
  EXPECT_EQ(parse("00000b01 00000002 ff00 0102").to_vector<int32_t>(),
            (std::vector<int32_t>{-256, 258}));
  EXPECT_EQ(parse("00000c01 00000001 fffffffe").to_vector<int32_t>(), (std::vector<int32_t>{-2}));
  EXPECT_EQ(parse("00000d01 00000001 3fc00000").to_vector<float>(), (std::vector<float>{1.5f}));
  EXPECT_EQ(parse("00000e01 00000001 3ff8000000000000").to_vector<double>(),
            (std::vector<double>{1.5}));
  EXPECT_EQ(parse("00000802 00000002 00000001 0506").shape(), (Shape{2, 1}));
}

TEST(Idx, Refusals) {
  const auto text = [](const std::string& hex) {
    const std::string s = from_hex(hex);
    return message_of<DataError>([&] { parse_idx(as_bytes(s), "f"); });
  };
  EXPECT_THAT(text("00000801 00000003 0702"), HasSubstr("expected 3 bytes for shape [3], found 2"));
  EXPECT_THAT(text("00000801 00000003 07020100"), HasSubstr("found 4"));
  EXPECT_THAT(text("00000a01 00000000"), HasSubstr("an idx file"));
  EXPECT_THAT(text("00000800"), HasSubstr("an idx file"));
  EXPECT_THAT(text("00000809"), HasSubstr("an idx file"));
  EXPECT_THAT(text("00000804 ffffffff ffffffff ffffffff ffffffff"), HasSubstr("2^60"));
  EXPECT_THAT(text("00000804 00000909 44000000 000a0000 00000000"), HasSubstr("2^60"));
  EXPECT_THAT(text("0000"), HasSubstr("4 bytes of the idx header"));
  EXPECT_THAT(text("3c68746d6c3e"), HasSubstr("HTML"));
}

// What would be unpacked is known from the header.
TEST(Idx, AtMostWhatTheSetHas) {
  const std::string ones = std::string("\0\0\x08\x01\0\0\0\x09", 8) + std::string(9, '\1');
  EXPECT_EQ(parse_idx(as_bytes(ones), "f", 9).numel(), 9);
  EXPECT_THROW(parse_idx(as_bytes(ones), "f", 8), DataError);
}

std::string cifar10_record(int label, int seed) {
  std::string r(1, static_cast<char>(label));
  for (int i = 0; i < 3072; ++i) r += static_cast<char>((i * 7 + seed) % 251);
  return r;
}

TEST(CifarBinary, Records) {
  const std::string ten = cifar10_record(3, 0) + cifar10_record(9, 5);
  const LabelledImages a = parse_cifar_binary(as_bytes(ten), "f", false);
  EXPECT_EQ(a.labels.to_vector<int64_t>(), (std::vector<int64_t>{3, 9}));
  EXPECT_EQ(a.images.shape(), (Shape{2, 3, 32, 32}));
  EXPECT_EQ(a.images.data<uint8_t>()[3072 + 1], 12);
  const std::string hundred = std::string(1, 19) + cifar10_record(99, 0);
  EXPECT_EQ(parse_cifar_binary(as_bytes(hundred), "f", true).labels.item(), 99);
  const auto text = [](const std::string& s, bool cifar100, int64_t records) {
    return message_of<DataError>([&] { parse_cifar_binary(as_bytes(s), "f", cifar100, records); });
  };
  EXPECT_THAT(text(cifar10_record(0, 0) + cifar10_record(10, 0), false, 2),
              HasSubstr("at byte 3073: expected a label 0-9 in record 1, found 10"));
  EXPECT_THAT(text(std::string(1, 20) + cifar10_record(0, 0), true, 1),
              HasSubstr("coarse label 0-19"));
  EXPECT_THAT(text(std::string(1, 0) + cifar10_record(100, 0), true, 1), HasSubstr("a label 0-99"));
  EXPECT_THAT(text(ten, false, 3), HasSubstr("expected 9219 bytes, found 6146"));
  EXPECT_THAT(text(ten.substr(1), false, -1), HasSubstr("a multiple of 3073 bytes"));
  EXPECT_THAT(text("<html>", false, 1), HasSubstr("HTML"));
}

TEST(CifarPickle, Fixtures) {
  for (const bool cifar100 : {false, true}) {
    const std::string bytes = read_all(fixture(cifar100 ? "cifar100_python" : "cifar10_python"));
    const LabelledImages a = parse_cifar_pickle(as_bytes(bytes), "f", cifar100);
    EXPECT_EQ(a.labels.to_vector<int64_t>(),
              cifar100 ? (std::vector<int64_t>{19, 99}) : (std::vector<int64_t>{6, 9}));
    ASSERT_EQ(a.images.shape(), (Shape{2, 3, 32, 32}));
    for (int64_t i = 0; i < a.images.numel(); ++i)
      ASSERT_EQ(a.images.data<uint8_t>()[i], i * 7 % 251) << i;
    // The other set's key is not there.
    EXPECT_THROW(parse_cifar_pickle(as_bytes(bytes), "f", !cifar100), DataError);
  }
}

// A batch loaded and saved again: every protocol, labels as NumPy integers or an array, images as
// [n,3,32,32] (tests/data/make/cifar_repickled.py).
TEST(CifarPickle, PickledAgain) {
  for (const char* name : {"cifar10_protocol0", "cifar10_protocol4", "cifar10_protocol5",
                           "cifar10_numpy_labels", "cifar10_images"}) {
    const std::string bytes = read_all(fixture(name));
    const LabelledImages a = parse_cifar_pickle(as_bytes(bytes), "f", false);
    EXPECT_EQ(a.labels.to_vector<int64_t>(), (std::vector<int64_t>{6, 9})) << name;
    for (int64_t i = 0; i < a.images.numel(); ++i)
      ASSERT_EQ(a.images.data<uint8_t>()[i], i * 7 % 251) << name << " " << i;
  }
  const std::string swapped = read_all(fixture("cifar10_channels_last"));
  EXPECT_THAT(message_of<DataError>([&] { parse_cifar_pickle(as_bytes(swapped), "f", false); }),
              HasSubstr("found shape [2, 32, 32, 3]"));
}

TEST(Cifar, FolderFormsAndMissingBatches) {
  TempDir dir;
  DatasetSpec spec{"cifar10", dir.path(), "test"};
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }),
              HasSubstr("run \"mtcki data get cifar10\""));
  write_all_text(dir / "test_batch.bin.xz", "x");
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }), HasSubstr("xz -dk *.xz"));
  write_all_text(dir / "cifar-10-batches-bin/test_batch.bin", "short");
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }),
              HasSubstr("test_batch.bin\": expected 30730000 bytes, found 5"));
  spec.split = "train";
  write_all_text(dir / "cifar-10-batches-py/data_batch_1", read_all(fixture("cifar10_python")));
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }), HasSubstr("data_batch_2"));
  for (int i = 2; i <= 5; ++i)
    write_all_text(dir / str("cifar-10-batches-py/data_batch_", i),
                   read_all(fixture("cifar10_python")));
  const ImageSet set = load_dataset(spec);
  EXPECT_EQ(set.size(), 10);
  EXPECT_EQ(set.class_names[9], "truck");
  EXPECT_EQ(set.normalization.mean.size(), 3u);
  EXPECT_EQ(set.name, "cifar10");
  EXPECT_EQ(set.split, "train");
}

TEST(FashionMnist, ShippedFilesAreOfficialAndLoad) {
  const std::string dir = std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist";
  const VerifyReport report = verify_dataset("fashion-mnist", dir);
  ASSERT_EQ(report.rows.size(), 4u);
  for (const VerifyRow& row : report.rows) {
    EXPECT_EQ(row.status, FileStatus::ok) << row.expected.path;
    EXPECT_EQ(row.actual_md5, row.expected.md5);
  }
  EXPECT_TRUE(report.usable);
  const ImageSet set = load_dataset({"fashion-mnist", dir, "test"});
  EXPECT_EQ(set.images.shape(), (Shape{10000, 1, 28, 28}));
  std::vector<int> count(10);
  for (const int64_t label : set.labels.to_vector<int64_t>()) ++count[static_cast<size_t>(label)];
  EXPECT_EQ(count, std::vector<int>(10, 1000));
  EXPECT_EQ(set.labels.data<int64_t>()[0], 9);  // an ankle boot
  EXPECT_EQ(set.class_names[9], "ankle boot");
  const ImageSet few = load_dataset({"fashion-mnist", dir, "test", 7});
  EXPECT_EQ(few.size(), 7);
  EXPECT_EQ(few.images.data<uint8_t>()[5 * 784 + 300], set.images.data<uint8_t>()[5 * 784 + 300]);
}

TEST(Mnist, ImagesAndLabelsMustBelongTogether) {
  TempDir dir;
  const std::string image(784, '\5');
  write_all_text(dir / "t10k-images-idx3-ubyte",
                 from_hex("00000803 00000001 0000001c 0000001c") + image);
  write_all_text(dir / "t10k-labels-idx1-ubyte", from_hex("00000801 00000002 0102"));
  const DatasetSpec spec{"mnist", dir.path(), "test"};
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }),
              HasSubstr("expected u8 labels [1]"));
  write_all_text(dir / "t10k-labels-idx1-ubyte", from_hex("00000801 00000001 0a"));
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }),
              HasSubstr("at byte 8: expected a label 0-9, found 10"));
  write_all_text(dir / "t10k-labels-idx1-ubyte", from_hex("00000801 00000001 04"));
  EXPECT_EQ(load_dataset(spec).labels.item(), 4);
  // As mirrors name them, in torchvision's folders.
  std::filesystem::create_directories(dir / "MNIST/raw");
  for (const char* part : {"images", "labels"}) {
    const std::string name = std::string("t10k-") + part, end = part[0] == 'i' ? "3" : "1";
    std::filesystem::rename(dir / name + "-idx" + end + "-ubyte",
                            dir / "MNIST/raw/" + name + ".idx" + end + "-ubyte");
  }
  EXPECT_EQ(load_dataset(spec).labels.item(), 4);
  EXPECT_THAT(message_of<DataError>([&] {
                load_dataset({"fashion-mnist", dir.path(), "test"});
              }),
              HasSubstr("expected the files of the set"));
}

TEST(Dataset, UnknownNamesAndSplits) {
  EXPECT_THAT(message_of<UsageError>([] {
                load_dataset({"cifar-10", "", "test"});
              }),
              HasSubstr("did you mean \"cifar10\"?"));
  EXPECT_THAT(message_of<UsageError>([] { dataset_info("imagenet21k"); }),
              HasSubstr("known: cifar10"));
  EXPECT_THAT(message_of<UsageError>([] {
                load_dataset({"synth10", "", "val"});
              }),
              HasSubstr("split is train or test"));
  for (const std::string& name : dataset_names()) {
    const DatasetInfo info = dataset_info(name);
    EXPECT_EQ(info.normalization.mean.size(), static_cast<size_t>(info.channels)) << name;
    EXPECT_EQ(info.normalization.std.size(), static_cast<size_t>(info.channels)) << name;
  }
}

TEST(Dataset, DefaultFolder) {
  TempDir dir;
  ::setenv("MTCKI_DATA_DIR", dir.path().c_str(), 1);
  EXPECT_EQ(dataset_default_dir("imagefolder"),
            dir / "imagefolder");  // nowhere: where it would be put
  std::filesystem::create_directories(dir / "cifar-10");
  EXPECT_EQ(dataset_default_dir("cifar10"), dir / "cifar-10");
  // What ships with the sources is found beside a folder for the rest.
  EXPECT_TRUE(std::filesystem::exists(dataset_default_dir("fashion-mnist") + "/LICENSE"));
  ::unsetenv("MTCKI_DATA_DIR");
  EXPECT_TRUE(std::filesystem::exists(dataset_default_dir("fashion-mnist") + "/LICENSE"));
}

TEST(Synth10, DeterministicAndBalanced) {
  const DatasetSpec spec{"synth10", "", "train", 200, 5};
  const ImageSet a = load_dataset(spec), b = load_dataset(spec);
  EXPECT_EQ(a.images.shape(), (Shape{200, 3, 32, 32}));
  EXPECT_EQ(a.images.to_vector<uint8_t>(), b.images.to_vector<uint8_t>());
  DatasetSpec other = spec;
  other.seed = 6;
  EXPECT_NE(load_dataset(other).images.to_vector<uint8_t>(), a.images.to_vector<uint8_t>());
  other = spec;
  other.split = "test";
  EXPECT_NE(load_dataset(other).images.to_vector<uint8_t>(), a.images.to_vector<uint8_t>());
  other = spec;
  other.limit = 50;  // a prefix
  const std::vector<uint8_t> some = load_dataset(other).images.to_vector<uint8_t>();
  EXPECT_TRUE(std::equal(some.begin(), some.end(), a.images.data<uint8_t>()));
  std::set<int64_t> labels;
  for (const int64_t label : a.labels.to_vector<int64_t>()) labels.insert(label);
  EXPECT_EQ(labels.size(), 10u);
  EXPECT_EQ(load_dataset({"synth10-gray", "", "test", 20}).images.shape(), (Shape{20, 1, 28, 28}));
}

Tensor flat(int64_t side, int value) { return Tensor::full({3, side, side}, value, DType::u8); }

TEST(ImageFolder, ClassesSortedFilesRecursive) {
  TempDir dir;
  for (const char* sub : {"train/b/deep", "train/a", "val/a", "val/b"})
    std::filesystem::create_directories(dir / sub);
  write_png(dir / "train/b/2.PNG", flat(4, 2));
  write_png(dir / "train/b/deep/1.png", flat(4, 3));
  write_png(dir / "train/a/x.png", flat(4, 1));
  write_png(dir / "val/a/x.png", flat(4, 1));
  write_png(dir / "val/b/x.png", flat(4, 1));
  write_all_text(dir / "train/b/notes.txt", "no image");
  const ImageSet set = load_dataset({"imagefolder", dir.path(), "train"});
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(set.labels.to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 1}));
  EXPECT_EQ(set.images.data<uint8_t>()[0], 1);
  EXPECT_EQ(set.images.data<uint8_t>()[48], 2);
  EXPECT_EQ(set.images.data<uint8_t>()[96], 3);
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "test"}).size(), 2);  // val stands for test

  std::filesystem::create_directories(dir / "val/c");
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(dir.path(), "test"); }),
              HasSubstr("the same class folders"));
  std::filesystem::create_directories(dir / "train/c");
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(dir.path(), "train"); }),
              HasSubstr("train/c\": expected images"));
  write_png(dir / "train/c/x.png", flat(5, 1));
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(dir.path(), "train"); }),
              AllOf(HasSubstr("train/c/x.png\": expected an image of 4 x 4"),
                    HasSubstr("found 5 x 5; data.size=N")));
  write_all_text(dir / "train/c/x.png", "not a picture");
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(dir.path(), "train"); }),
              HasSubstr("train/c/x.png\": at byte 0: expected a PNG or JPEG image"));
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(dir / "absent", "train"); }),
              HasSubstr("in one called train, training, found no folders"));
}

TEST(TinyImageNet, ValidationLabelsComeFromTheAnnotations) {
  TempDir dir;
  const std::string root = dir / "tiny-imagenet-200";
  write_all_text(root + "/wnids.txt", "n02\nn01\n");
  write_all_text(root + "/words.txt", "n01\tgoldfish, Carassius auratus\nn02\tsnail\n");
  for (const char* id : {"n01", "n02"}) {
    std::filesystem::create_directories(root + "/train/" + id + "/images");
    write_all_text(root + "/train/" + id + "/images/a.JPEG", read_all(fixture("q90_444.jpg")));
  }
  std::filesystem::create_directories(root + "/val/images");
  write_all_text(root + "/val/images/v0.JPEG", read_all(fixture("grey.jpg")));
  write_all_text(root + "/val/images/v1.JPEG", read_all(fixture("q75_420.jpg")));
  write_all_text(root + "/val/val_annotations.txt",
                 "v0.JPEG\tn01\t0\t0\t1\t1\nv1.JPEG\tn02\t0\t0\t1\t1\n");
  const ImageSet train = load_dataset({"tiny-imagenet", dir.path(), "train"});
  // Sorted ids, whatever the order of wnids.txt.
  EXPECT_EQ(train.class_names, (std::vector<std::string>{"goldfish", "snail"}));
  EXPECT_EQ(train.class_ids, (std::vector<std::string>{"n01", "n02"}));
  EXPECT_EQ(train.listed_ids, (std::vector<std::string>{"n02", "n01"}));
  EXPECT_EQ(train.labels.to_vector<int64_t>(), (std::vector<int64_t>{0, 1}));
  const ImageSet test = load_dataset({"tiny-imagenet", root, "test"});
  EXPECT_EQ(test.labels.to_vector<int64_t>(), (std::vector<int64_t>{0, 1}));
  DatasetSpec as_listed{"tiny-imagenet", root, "test"};
  as_listed.class_order = "file";
  EXPECT_EQ(load_dataset(as_listed).labels.to_vector<int64_t>(), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(load_dataset(as_listed).class_ids, (std::vector<std::string>{"n02", "n01"}));
  // The trap: read as a folder of classes, val would be one class.
  EXPECT_THAT(message_of<DataError>([&] { load_image_folder(root, "val"); }),
              HasSubstr("use dataset tiny-imagenet"));
  write_all_text(root + "/val/val_annotations.txt", "v0.JPEG\tn99\n");
  EXPECT_THAT(message_of<DataError>([&] {
                load_dataset({"tiny-imagenet", root, "test"});
              }),
              HasSubstr("in line 1"));
  write_all_text(root + "/val/val_annotations.txt", "../../x\tn01\n");
  EXPECT_THROW(load_dataset({"tiny-imagenet", root, "test"}), DataError);
}

// As the usual scripts leave it: val/ sorted into classes, wnids.txt perhaps lost.
TEST(TinyImageNet, ValidationSortedIntoClasses) {
  TempDir dir;
  const std::string jpeg = read_all(fixture("q90_444.jpg"));
  for (const char* file : {"train/n01/images/a.JPEG", "train/n02/images/a.JPEG",
                           "val/n01/images/v0.JPEG", "val/n02/v1.JPEG", "val/n02/v2.JPEG"})
    write_all_text(dir / file, jpeg);
  write_all_text(dir / "train/n01/n01_boxes.txt", "a.JPEG\t0\t0\t1\t1\n");
  const auto labels = [&] {
    return load_dataset({"tiny-imagenet", dir.path(), "test"}).labels.to_vector<int64_t>();
  };
  EXPECT_EQ(labels(), (std::vector<int64_t>{0, 1, 1}));
  write_all_text(dir / "wnids.txt", "n02\nn01\n");
  std::filesystem::create_directories(dir / "val/images");  // emptied, not removed
  EXPECT_EQ(labels(), (std::vector<int64_t>{0, 1, 1}));
  EXPECT_EQ(load_dataset({"tiny-imagenet", dir.path(), "train"}).note, "");
  // The same tree is an image folder too; nobody is sent from one to the other.
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "train"}).size(), 2);
  std::filesystem::remove(dir / "val/images");
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "test"}).size(), 3);
  write_all_text(dir / "val/images/v3.JPEG", jpeg);
  EXPECT_THAT(message_of<DataError>(labels), HasSubstr("stopped half-way"));
  std::filesystem::remove_all(dir / "val/images");
  std::filesystem::remove_all(dir / "val/n01");
  EXPECT_THAT(message_of<DataError>(labels), HasSubstr("val/n01\": expected a folder"));
}

TEST(ImageFolder, HiddenEntriesAreLeftOutWithAWord) {
  TempDir dir;
  for (const char* file : {"train/a/x.png", "train/b/x.png", "test/a/x.png", "test/b/x.png"}) {
    std::filesystem::create_directories(std::filesystem::path(dir / file).parent_path());
    write_png(dir / file, flat(4, 1));
  }
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "train"}).note, "");
  for (const char* hidden : {"train/.ipynb_checkpoints/x-checkpoint.png", "train/._x.png",
                             "train/a/.ipynb_checkpoints/x-checkpoint.png", "train/a/._x.png",
                             "train/b/.DS_Store", "train/__MACOSX/x.png"}) {
    std::filesystem::create_directories(std::filesystem::path(dir / hidden).parent_path());
    write_all_text(dir / hidden, "no picture");
  }
  write_all_text(dir / "train/labels.csv", "x");
  write_all_text(dir / "train/b/notes.txt", "x");
  const ImageSet set = load_dataset({"imagefolder", dir.path(), "train"});
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(set.size(), 2);
  EXPECT_EQ(set.note,
            "left out: 6 hidden (._x.png, ...), 1 text (notes.txt), 1 file beside the classes "
            "(labels.csv)");
  // The test part has the same classes, whatever is hidden.
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "test"}).size(), 2);
  // Anything else below a class is an image, or is refused.
  std::filesystem::create_directory_symlink(dir / "test/a", dir / "train/a/more");
  write_png(dir / "train/a/without_ending", flat(4, 1));
  EXPECT_EQ(load_dataset({"imagefolder", dir.path(), "train"}).size(), 4);
  write_all_text(dir / "train/a/film.mp4", "GIF89a");
  const auto load = [&] { load_dataset({"imagefolder", dir.path(), "train"}); };
  EXPECT_THAT(message_of<DataError>(load), AllOf(HasSubstr("film.mp4"), HasSubstr("GIF")));
  std::filesystem::create_directory_symlink(dir / "train/a", dir / "train/a/loop");
  EXPECT_THAT(message_of<DataError>(load), HasSubstr("leads back"));
}

TEST(ImageFolder, SomeBadFilesMayBeSkippedAndGreyIsRead) {
  TempDir dir;
  for (const char* name : {"a", "b"}) {
    std::filesystem::create_directories(dir / "train" + "/" + name);
    write_png(dir / "train" + "/" + name + "/x.png", Tensor::full({1, 4, 4}, 7, DType::u8));
  }
  write_all_text(dir / "train/a/0.png", "GIF89a");
  write_all_text(dir / "train/b/9.jpg", "broken");
  DatasetSpec spec{"imagefolder", dir.path(), "train"};
  spec.skip_bad = 1;
  EXPECT_THAT(message_of<DataError>([&] { load_dataset(spec); }), HasSubstr("9.jpg"));
  spec.skip_bad = 2;
  spec.channels = 1;
  const ImageSet set = load_dataset(spec);
  EXPECT_EQ(set.images.shape(), (Shape{2, 1, 4, 4}));
  EXPECT_EQ(set.labels.to_vector<int64_t>(), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(set.images.data<uint8_t>()[31], 7);
  EXPECT_EQ(set.normalization.mean.size(), 1u);
  EXPECT_THAT(set.note, HasSubstr("2 files could not be read and were left out"));
  spec = {"cifar10", dir.path(), "train"};
  spec.channels = 1;
  EXPECT_THAT(message_of<UsageError>([&] { load_dataset(spec); }), HasSubstr("channels 1"));
}

TEST(Verify, ReportsWhatIsWrongAndHowToRepair) {
  TempDir dir;
  const std::string source = std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist/";
  std::string labels = read_all(source + "t10k-labels-idx1-ubyte.gz");
  labels[100] ^= 1;
  write_all_text(dir / "t10k-labels-idx1-ubyte.gz", labels);
  write_all_text(dir / "t10k-images-idx3-ubyte.gz", "<html>");
  std::filesystem::copy_file(source + "train-labels-idx1-ubyte.gz",
                             dir / "train-labels-idx1-ubyte.gz");
  const VerifyReport report = verify_dataset("fashion-mnist", dir.path());
  ASSERT_EQ(report.rows.size(), 4u);
  EXPECT_EQ(report.rows[0].status, FileStatus::missing);
  EXPECT_EQ(report.rows[1].status, FileStatus::ok);
  EXPECT_EQ(report.rows[2].status, FileStatus::bad_size);
  EXPECT_EQ(report.rows[2].actual_bytes, 6);
  EXPECT_THAT(report.rows[2].note, HasSubstr("HTML"));
  EXPECT_EQ(report.rows[3].status, FileStatus::warning);
  EXPECT_NE(report.rows[3].actual_md5, report.rows[3].expected.md5);
  EXPECT_FALSE(report.usable);
  EXPECT_EQ(report.repair, "mtcki data get fashion-mnist --data-dir " + dir.path());
}

TEST(Verify, SetsWithoutPublishedMemberSums) {
  TempDir dir;
  const VerifyReport none = verify_dataset("cifar10", dir.path());
  EXPECT_EQ(none.rows.size(), 6u);
  EXPECT_FALSE(none.usable);
  write_all_text(dir / "cifar-10-batches-py/test_batch", read_all(fixture("cifar10_python")));
  const VerifyReport python = verify_dataset("cifar10", dir.path());
  EXPECT_EQ(python.rows[5].expected.path, "cifar-10-batches-py/test_batch");
  EXPECT_EQ(python.rows[5].status, FileStatus::warning);
  EXPECT_TRUE(verify_dataset("synth10").usable);
  EXPECT_THROW(verify_dataset("nothing"), UsageError);
}

}  // namespace
}  // namespace mtcki::data

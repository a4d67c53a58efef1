// Checksums, digests, atomic files and bounded reading.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/gzip.h"
#include "data/formats/lost_mapping.h"
#include "data/sets/digest.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using testing::from_hex;
using ::testing::HasSubstr;
using testing::message_of;
using testing::read_all;
using testing::TempDir;
using testing::write_all_text;

TEST(Checksum, Vectors) {
  const std::string digits = "123456789", zeros(32, '\0');
  EXPECT_EQ(crc32(digits.data(), digits.size()), 0xcbf43926u);
  EXPECT_EQ(crc32c(digits.data(), digits.size()), 0xe3069283u);
  EXPECT_EQ(crc32c(zeros.data(), zeros.size()), 0x8a9136aau);
  EXPECT_EQ(masked_crc32c(digits.data(), digits.size()), 0xc78ab0e5u);
}

TEST(Checksum, InPiecesEqualsAtOnce) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37);
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{7}, size_t{64}, size_t{999}}) {
    const char* p = text.data();
    EXPECT_EQ(crc32(p + cut, 1000 - cut, crc32(p, cut)), crc32(p, 1000));
    EXPECT_EQ(crc32c(p + cut, 1000 - cut, crc32c(p, cut)), crc32c(p, 1000));
  }
  TempDir dir;
  write_all_text(dir / "f", text);
  EXPECT_EQ(crc32c_file(dir / "f"), crc32c(text.data(), text.size()));
  EXPECT_THROW(crc32c_file(dir / "absent"), DataError);
}

TEST(Digest, VectorsAndFiles) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  TempDir dir;
  write_all_text(dir / "f", "message digest");
  EXPECT_EQ(md5_file(dir / "f"), "f96b697d7cb7938d525a2f31aaf161d0");
  std::string text;  // longer than one piece
  for (int i = 0; i < (1 << 20) + 7; ++i) text += static_cast<char>(i * 37);
  write_all_text(dir / "g", text);
  EXPECT_EQ(sha256_file(dir / "g"), sha256_hex(text));
  EXPECT_THROW(md5_file(dir / "absent"), DataError);
}

// Faults by name of the operation: the n-th call of `g_operation` fails with g_error.
const char* g_operation = "";
int g_error = 0, g_countdown = 0, g_calls = 0;
int fault(const char* operation) {
  ++g_calls;
  if (std::string(operation) == g_operation && g_countdown-- == 0) return g_error;
  return 0;
}
struct Fault {
  Fault(const char* operation, int error, int after = 0) {
    g_operation = operation;
    g_error = error;
    g_countdown = after;
    g_calls = 0;
    set_io_hook(fault);
  }
  ~Fault() { set_io_hook(nullptr); }
};

std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> out;
  for (const auto& e : std::filesystem::directory_iterator(dir)) out.push_back(e.path().filename());
  return out;
}

TEST(AtomicFile, WritesAndReplaces) {
  TempDir dir;
  write_file_atomic(dir / "f", "one");
  EXPECT_EQ(read_all(dir / "f"), "one");
  const std::string big(3'000'000, 'x');  // several pieces
  write_file_atomic(dir / "f", big);
  EXPECT_EQ(read_all(dir / "f"), big);
  EXPECT_EQ(names_in(dir.path()).size(), 1u);
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  TempDir dir;
  write_file_atomic(dir / "f", "old");
  {
    AtomicFile file(dir / "f");
    file.write("new");
  }
  EXPECT_EQ(read_all(dir / "f"), "old");
  EXPECT_EQ(names_in(dir.path()).size(), 1u);
}

TEST(AtomicFile, EveryFailingOperationLeavesTheOldFile) {
  TempDir dir;
  const std::string path = dir / "f";
  write_file_atomic(path, "old");
  const std::string content(2'500'000, 'n');
  for (const char* operation : {"open", "write", "fsync", "close", "rename"})
    for (const int after : {0, 1, 2}) {
      if (after > 0 && std::string(operation) != "write") continue;
      const Fault f(operation, ENOSPC, after);
      const std::string text = message_of<DiskError>([&] { write_file_atomic(path, content); });
      EXPECT_THAT(text, HasSubstr("No space left on device")) << operation;
      EXPECT_THAT(text, HasSubstr(path));
      EXPECT_THAT(text, HasSubstr("free"));
      EXPECT_EQ(read_all(path), "old") << operation;
      EXPECT_EQ(names_in(dir.path()).size(), 1u) << operation;
    }
  EXPECT_EQ(DiskError("x").exit_code(), 6);
}

TEST(AtomicFile, InterruptedCallsAreRepeated) {
  TempDir dir;
  {
    const Fault f("write", EINTR);
    write_file_atomic(dir / "f", "content");
  }
  {
    const Fault f("fsync", EINTR);
    write_file_atomic(dir / "g", "content");
  }
  EXPECT_EQ(read_all(dir / "f"), "content");
  EXPECT_EQ(read_all(dir / "g"), "content");
}

TEST(AtomicFile, SyncsFileBeforeRenameAndFolderAfter) {
  static std::string order;
  order.clear();
  set_io_hook([](const char* operation) {
    order += std::string(operation) + " ";
    return 0;
  });
  TempDir dir;
  write_file_atomic(dir / "f", "x");
  set_io_hook(nullptr);
  EXPECT_EQ(order, "open write fsync close rename fsync-dir ");
}

TEST(AtomicFile, NamesAMissingFolder) {
  TempDir dir;
  const std::string text = message_of<DiskError>([&] { write_file_atomic(dir / "absent/f", "x"); });
  EXPECT_THAT(text, HasSubstr(str("the folder \"", dir / "absent", "\" does not exist")));
}

TEST(AtomicFile, FullDevice) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  const int fd = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_THROW(write_all(fd, "x", 1, "/dev/full"), DiskError);
  ::close(fd);
}

TEST(AtomicFile, FileSizeLimit) {
  TempDir dir;
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 1 << 16;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string text;
  try {
    write_file_atomic(dir / "f", std::string(1 << 18, 'x'));
  } catch (const DiskError& e) {
    text = e.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(text, HasSubstr("needed 256.0 KiB"));
  EXPECT_TRUE(names_in(dir.path()).empty());
}

TEST(FreeBytes, OfAPathThatIsNotThereYet) {
  TempDir dir;
  EXPECT_GT(free_bytes(dir / "a/b/c"), 0u);
}

TEST(MappedFile, MissingFolderAndEmpty) {
  TempDir dir;
  EXPECT_THAT(message_of<DataError>([&] { MappedFile f(dir / "absent"); }),
              HasSubstr("No such file or directory"));
  EXPECT_THAT(message_of<DataError>([&] { MappedFile f(dir.path()); }), HasSubstr("a folder"));
  write_all_text(dir / "empty", "");
  EXPECT_EQ(MappedFile(dir / "empty").bytes().size(), 0u);
}

// Another process may cut a file short while it is mapped.
TEST(MappedFile, CutShortWhileItIsReadEndsInALine) {
  TempDir dir;
  const std::string path = dir / "name\x1b";
  write_all_text(path, std::string(10000, 'x'));
  const auto read = [&] {
    report_lost_mappings();
    const MappedFile file(path);
    if (::truncate(path.c_str(), 0) != 0) return;
    volatile uint8_t last = file.bytes()[9999];
    static_cast<void>(last);
  };
  EXPECT_EXIT(read(), ::testing::ExitedWithCode(3), "error: \"/.*/name\\?\": became shorter");
}

// Folders are made with their names on the disk: what is synced in them is nothing without those.
TEST(MakeDirectories, SyncsEachParentOfWhatItMade) {
  TempDir dir;
  static int syncs;
  syncs = 0;
  set_io_hook([](const char* operation) {
    syncs += std::string(operation) == "fsync-dir";
    return 0;
  });
  make_directories(dir / "a/b/c");
  EXPECT_EQ(syncs, 3);
  make_directories(dir / "a/b/c");
  EXPECT_EQ(syncs, 3);
  set_io_hook([](const char*) { return EIO; });
  EXPECT_THAT(message_of<DiskError>([&] { make_directories(dir / "a/d"); }),
              HasSubstr("cannot sync folder"));
  set_io_hook(nullptr);
}

TEST(ByteReader, NumbersAndTheEnd) {
  const std::string text = from_hex("01 0200 03000000 0400000000000000 00000005") + "line\nrest";
  ByteReader r(as_bytes(text), "f");
  EXPECT_EQ(r.u8("a"), 1);
  EXPECT_EQ(r.u16("a"), 2);
  EXPECT_EQ(r.u32("a"), 3u);
  EXPECT_EQ(r.u64("a"), 4u);
  EXPECT_EQ(r.u32_big("a"), 5u);
  EXPECT_EQ(r.line("a"), "line");
  EXPECT_EQ(message_of<DataError>([&] { r.u64("the length"); }),
            "\"f\": at byte 24: expected 8 bytes of the length, found 4 bytes before the end; the "
            "file is "
            "truncated or damaged");
  EXPECT_THROW(r.line("a"), DataError);
  EXPECT_THROW(r.take(~uint64_t{0}, "a"), DataError);
  EXPECT_THROW(r.seek(100, "a"), DataError);
}

TEST(Recognise, OtherKindsOfFiles) {
  const auto kind = [](const std::string& s) { return recognise(as_bytes(s)); };
  EXPECT_THAT(kind(""), HasSubstr("empty file"));
  EXPECT_THAT(kind("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(kind("\n <!DOCTYPE HTML PUBLIC>"), HasSubstr("HTML page"));
  EXPECT_THAT(kind("<html><body>404"), HasSubstr("HTML page"));
  EXPECT_THAT(kind(from_hex("504b0304")), HasSubstr("ZIP"));
  EXPECT_THAT(kind(from_hex("80027d71")), HasSubstr("pickle"));
  EXPECT_THAT(kind(from_hex("80028a0a6cfc9c46f9206aa850192e")), HasSubstr("old stream form"));
  EXPECT_THAT(kind("\x89HDF\r\n"), HasSubstr("HDF5"));
  EXPECT_EQ(kind("nothing in particular"), "");
  EXPECT_THAT(kind("BM" + from_hex("360c00000000000036")), HasSubstr("BMP"));
  EXPECT_THAT(kind(from_hex("1c000000") + "TFL3" + from_hex("00")), HasSubstr("TensorFlow Lite"));
  const auto text = [](const std::string& s) { return describe_content(as_bytes(s)); };
  EXPECT_EQ(text("Invalid user\nor password"), "a text that begins \"Invalid user\"");
  EXPECT_THAT(text(from_hex("08081207") + "pytorch"), HasSubstr("must end in .onnx"));
  // A safetensors file whose header has 640 = 0x0280 bytes is no pickle.
  EXPECT_EQ(kind(from_hex("8002000000000000") + "{}"), "a safetensors file");
}

TEST(Gzip, TruncationDamageAndLimit) {
  const std::string real =
      read_all(std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist/t10k-labels-idx1-ubyte.gz");
  const std::vector<uint8_t> plain = gunzip(as_bytes(real), "f", 10008);
  EXPECT_EQ(plain.size(), 10008u);
  EXPECT_EQ(gunzip(as_bytes(real + real), "f", 1 << 20).size(), 20016u);  // two members
  EXPECT_THROW(gunzip(as_bytes(real), "f", 10007), DataError);
  EXPECT_THROW(gunzip(as_bytes(real.substr(0, real.size() - 1)), "f", 1 << 20), DataError);
  EXPECT_THROW(gunzip(as_bytes(real + "x"), "f", 1 << 20), DataError);
  std::string flipped = real;
  flipped[flipped.size() / 2] ^= 1;
  EXPECT_THROW(gunzip(as_bytes(flipped), "f", 1 << 20), DataError);
}

}  // namespace
}  // namespace mtcki::data

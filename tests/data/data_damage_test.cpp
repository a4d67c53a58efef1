// Damaged and hostile files: every prefix and every flipped bit of small files, and the committed
// corpus, through the entry points that the fuzz targets use. A parser may accept or throw
// DataError, nothing else; what it holds meanwhile is bounded by the size of its input.
#include <algorithm>
#include <filesystem>

#include "data/formats/checksum.h"
#include "data/formats/gzip.h"
#include "data/formats/safetensors.h"
#include "data/formats/zip.h"
#include "tensor/allocator.h"
#include "tests/data/data_testing.h"
#include "tests/fuzz/parsers.h"

namespace mtcki::testing {
namespace {

using data::as_bytes;

const Parser& parser(const std::string& name) {
  for (const Parser& p : kParsers)
    if (name == p.name) return p;
  throw Error("no parser " + name);
}

std::string small_safetensors() {
  std::vector<size_t> order;
  const data::NamedTensors tensors = {{"w", Tensor::from<float>({1, 2}, {2})},
                                      {"n", Tensor::full({}, 7, DType::i64)}};
  std::string out = data::safetensors_header(tensors, {{"format", "pt"}}, &order);
  for (const size_t i : order)
    out.append(static_cast<const char*>(tensors[i].second.raw()), tensors[i].second.nbytes());
  return out;
}

std::string small_cifar() {
  std::string out;
  for (int i = 0; i < 2; ++i) {
    out.push_back(static_cast<char>(i + 3));
    out.append(3072, 'x');
  }
  return out;
}

// Whole, valid files by parser.
struct Sample {
  std::string parser, name, content;
  bool prefix_may_load = false;  // no length or checksum covers the end
};
std::vector<Sample> samples() {
  std::vector<Sample> out = {
      {"safetensors", "two tensors", small_safetensors()},
      {"safetensors", "torch_wrapped", read_all(fixture("torch_wrapped.safetensors"))},
      {"torch_zip", "plain", read_all(fixture("torch_plain.pth"))},
      {"torch_zip", "wrapped", read_all(fixture("torch_wrapped.pth"))},
      {"torch_stream", "plain", read_all(fixture("torch_plain_stream.th"))},
      {"torch_stream", "wrapped", read_all(fixture("torch_wrapped_stream.th"))},
      {"idx", "labels", from_hex("0000080100000003070201")},
      {"idx", "labels.gz",
       read_all(std::string(MTCKI_SOURCE_DIR) + "/data/fashion-mnist/t10k-labels-idx1-ubyte.gz")},
      {"zip", "stored", read_all(fixture("stored.zip"))},
      {"zip", "deflated", read_all(fixture("deflated.zip"))},
      {"onnx", "mobile", read_all(std::string(MTCKI_SOURCE_DIR) + "/tests/data/onnx/mobile.onnx")},
      {"cifar_pickle", "cifar10", read_all(fixture("cifar10_python"))},
  };
  if (out.back().content.size() % 2 == 1)  // the entry point takes odd sizes for CIFAR-100
    out.back().content = read_all(fixture("cifar100_python"));
  for (const char* name : {"rgb.png", "p.png", "1.png", "la.png", "sixteen.png"})
    out.push_back({"png", name, read_all(fixture(name))});
  for (const char* name : {"grey.jpg", "q75_420.jpg", "q40_422_progressive.jpg"})
    out.push_back({"jpeg", name, read_all(fixture(name))});
  return out;
}

// Feeds and checks the peak of tensor memory against the promised bound.
bool feed_bounded(const Parser& p, const std::string& content, uint64_t bytes_per_byte) {
  reset_peak_memory();
  const uint64_t before = memory_stats().in_use;
  const bool accepted = feed(p, as_bytes(content));
  EXPECT_LE(memory_stats().peak - before, bytes_per_byte * content.size() + (1 << 20)) << p.name;
  return accepted;
}

TEST(Damage, WholeSamplesAreAccepted) {
  for (const Sample& s : samples())
    EXPECT_TRUE(feed(parser(s.parser), as_bytes(s.content))) << s.parser << " " << s.name;
  EXPECT_TRUE(feed(parser("cifar_binary"),
                   as_bytes(small_cifar() + std::string(1, 1) + std::string(3072, 'y'))));
}

TEST(Damage, EveryPrefixIsRefused) {
  for (const Sample& s : samples()) {
    const Parser& p = parser(s.parser);
    const size_t step =
        s.content.size() > 2500 ? 7 : 1;  // all of the small ones, a seventh of the rest
    for (size_t n = 0; n < s.content.size(); n += step)
      ASSERT_FALSE(feed(p, as_bytes(s.content.substr(0, n))))
          << s.parser << " " << s.name << ": the first " << n << " of " << s.content.size()
          << " bytes";
  }
}

TEST(Damage, TrailingBytesOfPackedFormatsAreRefused) {
  for (const Sample& s : samples())
    if (s.parser == "safetensors" || s.parser == "idx") {
      EXPECT_FALSE(feed(parser(s.parser), as_bytes(s.content + "x"))) << s.parser << " " << s.name;
    }
}

TEST(Damage, FlippedBitsNeverCrashAndStayBounded) {
  for (const Sample& s : samples()) {
    const Parser& p = parser(s.parser);
    // Headers are at the front, directories of archives at the end.
    const size_t head = std::min<size_t>(s.content.size(), 700);
    const size_t tail = s.content.size() - std::min<size_t>(s.content.size() - head, 400);
    for (size_t at = 0; at < s.content.size(); at = at + 1 == head ? std::max(head, tail) : at + 1)
      for (int bit = 0; bit < 8; ++bit) {
        std::string damaged = s.content;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
        feed_bounded(p, damaged, 3 * 8 * 1032);
      }
  }
}

TEST(Damage, FlippedPayloadIsFoundWhereTheFormatHasChecksums) {
  for (const char* name : {"torch_plain.pth", "stored.zip"}) {
    const std::string whole = read_all(fixture(name));
    const Parser& p = parser(std::string(name).ends_with(".zip") ? "zip" : "torch_zip");
    const data::ZipArchive zip(as_bytes(whole), name);
    for (const data::ZipEntry& e : zip.entries()) {
      if (e.name.find("/data/") == std::string::npos && !e.name.ends_with(".npy")) continue;
      const uint64_t begin = zip.data_offset(e);
      for (uint64_t at = begin; at < begin + e.packed; ++at) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        EXPECT_FALSE(feed(p, as_bytes(damaged))) << name << " " << e.name << " byte " << at;
      }
    }
  }
}

// Files of other kinds under every name.
TEST(Damage, EveryParserOnEverySample) {
  for (const Sample& s : samples())
    for (const Parser& p : kParsers) feed(p, as_bytes(s.content));
  for (const Parser& p : kParsers)
    for (const std::string& text :
         {std::string(), std::string("\0", 1), std::string("<!DOCTYPE html>"),
          std::string(5000, '\xff'), std::string("version https://git-lfs.github.com/spec/v1\n"),
          std::string(4096, '\0')})
      feed(p, as_bytes(text));
}

// tests/data/damaged/<parser>-<what>: each file is refused, quickly.
TEST(Damage, CorpusIsRefused) {
  const std::string dir = std::string(MTCKI_SOURCE_DIR) + "/tests/data/damaged";
  int count = 0;
  for (const auto& e : std::filesystem::directory_iterator(dir)) {
    const std::string name = e.path().filename();
    const std::string content = read_all(e.path());
    EXPECT_FALSE(feed(parser(name.substr(0, name.find('-'))), as_bytes(content))) << name;
    for (const Parser& p : kParsers) feed(p, as_bytes(content));
    ++count;
  }
  EXPECT_GE(count, 20);
}

// A member that claims far more than its bytes can hold, and many members over the same bytes.
TEST(Damage, ZipBombs) {
  const std::string packed = read_all(fixture("deflated.zip"));
  const data::ZipArchive zip(as_bytes(packed), "f");
  const data::ZipEntry* zeros = zip.find("zeros.npy");
  ASSERT_NE(zeros, nullptr);
  EXPECT_NO_THROW(zip.read(*zeros));
  EXPECT_THROW(zip.read(*zeros, 100), DataError);
  data::ZipEntry liar = *zeros;
  liar.size = uint64_t{1} << 40;
  EXPECT_THROW(zip.read(liar), DataError);
  liar.size = zeros->size - 1;
  EXPECT_THROW(zip.read(liar), DataError);
  // Reading the same member again and again ends at what the whole file could inflate to.
  EXPECT_THROW(
      {
        for (int i = 0; i < 1000; ++i) zip.read(*zeros);
      },
      DataError);
}

}  // namespace
}  // namespace mtcki::testing

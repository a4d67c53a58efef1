// TensorBoard event files, byte by byte.
#include <cmath>
#include <limits>

#include "data/formats/checksum.h"
#include "data/formats/image_file.h"
#include "data/formats/protobuf.h"
#include "data/formats/tfevents.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using testing::from_hex;
using testing::read_all;
using testing::TempDir;

TEST(Protobuf, WireFormat) {
  ProtoWriter w;
  w.integer(1, 300).integer(2, -1).boolean(3, true).text(4, "ab").real32(5, 1.5f).real64(16, 2.0);
  EXPECT_EQ(
      w.bytes(),
      from_hex("08ac02 10ffffffffffffffffff01 1801 22026162 2d0000c03f 8101 0000000000000040"));
  EXPECT_EQ(ProtoWriter().message(1, ProtoWriter().integer(1, 1)).bytes(), from_hex("0a020801"));
}

TEST(Events, Vectors) {
  EXPECT_EQ(
      tf_record(event_file_version(1.0)),
      from_hex(
          "18000000 00000000 a37f4b22 09000000000000f03f1a0d627261696e2e4576656e743a32 86bf577a"));
  EXPECT_EQ(tf_record(event_scalars(2.0, 7, {{"loss", 0.5}})),
            from_hex("1a000000 00000000 129bd82d "
                     "09000000000000004010072a0d0a0b0a046c6f7373150000003f c33fc24a"));
  EXPECT_EQ(tf_record(event_session_start(1.0, 7)),
            from_hex("0f000000 00000000 6d532b09 09000000000000f03f10073a020801 c1c3ddcf"));
}

// The records of a file, with both checksums verified.
std::vector<std::string> records_of(const std::string& path) {
  const std::string bytes = read_all(path);
  std::vector<std::string> out;
  for (size_t at = 0; at < bytes.size();) {
    ByteReader r(as_bytes(bytes).subspan(at), path);
    const uint64_t n = r.u64("length");
    EXPECT_EQ(r.u32("crc"), masked_crc32c(bytes.data() + at, 8));
    const Bytes data = r.take(n, "data");
    EXPECT_EQ(r.u32("crc"), masked_crc32c(data.data(), data.size()));
    out.emplace_back(as_text(data));
    at += r.position();
  }
  return out;
}

TEST(Events, FileOfEveryKind) {
  TempDir dir;
  EventWriter w(dir / "run");
  w.scalars(1, {{"loss", std::numeric_limits<double>::quiet_NaN()}});
  w.scalars(2, {{"loss", 0.25}, {"accuracy", 90}});
  w.image_png("grid", 2, encode_png(Tensor::full({3, 4, 5}, 7, DType::u8)), 4, 5, 3);
  w.session_start(2);
  const std::vector<std::string> records = records_of(w.path());
  ASSERT_EQ(records.size(), 5u);
  using ::testing::HasSubstr;
  EXPECT_THAT(records[0], HasSubstr("brain.Event:2"));
  EXPECT_THAT(records[2], HasSubstr("accuracy"));
  EXPECT_THAT(records[3], HasSubstr(from_hex("08041005180322")));  // 4 high, 5 wide, RGB
  EXPECT_THAT(records[3], HasSubstr("\x89PNG"));
  EXPECT_EQ(records[4].substr(9), from_hex("10023a020801"));
  EXPECT_THAT(w.path(), ::testing::MatchesRegex(
                            ".*/events\\.out\\.tfevents\\.[0-9]{10}\\..*\\.[0-9]+\\.[0-9]+"));
}

TEST(Events, EveryWriterHasItsOwnFile) {
  TempDir dir;
  EventWriter a(dir.path()), b(dir.path());
  EXPECT_NE(a.path(), b.path());
  EXPECT_THROW(EventWriter("/proc/nowhere"), DiskError);
}

}  // namespace
}  // namespace mtcki::data

#include "data/formats/zip.h"

#include <algorithm>
#include <unordered_set>

#include "data/formats/checksum.h"
#include "data/formats/gzip.h"

namespace mtcki::data {

namespace {

constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50,
                   kCentral = 0x02014b50, kLocal = 0x04034b50;
const char* const kDamaged = "the archive is truncated or damaged: fetch it again";

// Replaces fields that are all ones by those of the ZIP64 extra field (id 1), in their fixed order.
void apply_zip64(Bytes extra, const std::string& name, ZipEntry* e) {
  ByteReader r(extra, name);
  while (r.left() >= 4) {
    const uint16_t id = r.u16("an extra field"), n = r.u16("an extra field");
    ByteReader field(r.take(n, "an extra field"), name);
    if (id != 1) continue;
    if (e->size == 0xffffffffu) e->size = field.u64("a ZIP64 size");
    if (e->packed == 0xffffffffu) e->packed = field.u64("a ZIP64 size");
    if (e->header == 0xffffffffu) e->header = field.u64("a ZIP64 offset");
    return;
  }
}

}  // namespace

ZipArchive::ZipArchive(Bytes content, std::string file_name)
    : content_(content), file_name_(std::move(file_name)), budget_(most_inflated(content.size())) {
  // The end record is in the last 22 + 65535 bytes, behind everything but its own comment.
  size_t end = content.size();
  bool found = false;
  const size_t lowest = content.size() > 22 + 65535 ? content.size() - 22 - 65535 : 0;
  for (size_t at = content.size() >= 22 ? content.size() - 22 : 0; content.size() >= 22; --at) {
    if (content[at] == 'P' && content[at + 1] == 'K' && content[at + 2] == 5 &&
        content[at + 3] == 6) {
      end = at;
      found = true;
      break;
    }
    if (at == lowest) break;
  }
  if (!found)
    throw_data_error(file_name_, -1, str("a ZIP end record in the last bytes of ", content.size()),
                     "none", kDamaged);
  ByteReader r(content, file_name_);
  r.seek(end + 8, "the end record");
  r.u16("the entry count of this disk");
  uint64_t count = r.u16("the entry count"), size = r.u32("the directory size"),
           start = r.u32("the directory offset");
  if (end >= 20) {
    r.seek(end - 20, "the ZIP64 locator");
    if (r.u32("the ZIP64 locator") == kLocator64) {
      r.u32("the ZIP64 locator");
      r.seek(r.u64("the ZIP64 locator"), "the ZIP64 end record");
      if (r.u32("the ZIP64 end record") != kEnd64)
        r.fail("the ZIP64 end record", "something else", kDamaged);
      r.take(28, "the ZIP64 end record");
      count = r.u64("the ZIP64 end record");
      size = r.u64("the ZIP64 end record");
      start = r.u64("the ZIP64 end record");
    }
  }
  if (start > end || size > end - start)
    throw_data_error(file_name_, static_cast<int64_t>(end), str("a directory before byte ", end),
                     str(size, " bytes at ", start), kDamaged);
  r.seek(start, "the central directory");
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < count; ++i) {
    if (r.u32("a directory entry") != kCentral)
      r.fail(str("entry ", i, " of the central directory"), "something else", kDamaged);
    ZipEntry e;
    r.take(4, "a directory entry");
    const uint16_t flags = r.u16("a directory entry");
    e.method = r.u16("a directory entry");
    r.take(4, "a directory entry");
    e.crc = r.u32("a directory entry");
    e.packed = r.u32("a directory entry");
    e.size = r.u32("a directory entry");
    const uint16_t name_size = r.u16("a directory entry"), extra_size = r.u16("a directory entry"),
                   comment_size = r.u16("a directory entry");
    r.take(8, "a directory entry");
    e.header = r.u32("a directory entry");
    e.name = std::string(as_text(r.take(name_size, "a member name")));
    apply_zip64(r.take(extra_size, "an extra field"), file_name_, &e);
    r.take(comment_size, "a comment");
    if (flags & 1) r.fail("plain members", "an encrypted one", "encrypted archives are not read");
    if (!names.insert(e.name).second)
      r.fail("distinct member names", "\"" + e.name.substr(0, 120) + "\" twice", kDamaged);
    entries_.push_back(std::move(e));
  }
}

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto it = std::find_if(entries_.begin(), entries_.end(),
                               [name](const ZipEntry& e) { return e.name == name; });
  return it == entries_.end() ? nullptr : &*it;
}

uint64_t ZipArchive::data_offset(const ZipEntry& e) const {
  ByteReader r(content_, file_name_);
  r.seek(e.header, "a local header");
  if (r.u32("a local header") != kLocal)
    r.fail("the local header of \"" + e.name.substr(0, 120) + "\"", "something else", kDamaged);
  r.take(22, "a local header");
  const uint16_t name_size = r.u16("a local header"), extra_size = r.u16("a local header");
  r.take(uint64_t{name_size} + extra_size, "a local header");
  return r.position();
}

ZipMember ZipArchive::read(const ZipEntry& e, uint64_t limit) const {
  ByteReader r(content_, file_name_);
  r.seek(data_offset(e), "a member");
  const Bytes packed = r.take(e.packed, "a member");
  const std::string where = file_name_ + "/" + e.name.substr(0, 200);
  ZipMember out;
  if (e.method == 0) {
    if (e.packed != e.size)
      throw_data_error(where, -1, str(e.size, " stored bytes"), str(e.packed), kDamaged);
    out.bytes = packed;
  } else if (e.method == 8) {
    const uint64_t most = std::min({limit, budget_, most_inflated(e.packed)});
    if (e.size > most)
      throw_data_error(where, -1, str("at most ", most, " bytes"), str(e.size), kDamaged);
    budget_ -= e.size;
    out.owned = inflate_raw(packed, e.size, where);
    out.bytes = out.owned;
  } else {
    throw_data_error(where, -1, "a stored or deflated member", str("method ", e.method));
  }
  if (out.bytes.size() > limit)
    throw_data_error(where, -1, str("at most ", limit, " bytes"), str(out.bytes.size()), kDamaged);
  if (const uint32_t crc = crc32(out.bytes.data(), out.bytes.size()); crc != e.crc)
    throw_data_error(where, -1, str("CRC-32 ", e.crc), str(crc), kDamaged);
  return out;
}

}  // namespace mtcki::data

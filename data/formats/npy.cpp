#include "data/formats/npy.h"

#include <cstring>
#include <string_view>
#include <vector>

#include "data/formats/half.h"
#include "data/formats/zip.h"

namespace mtcki::data {

namespace {

using namespace std::string_view_literals;

// The header is a Python dict literal of three known keys; this reads just that.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name, int64_t base)
      : text_(text), name_(name), base_(base) {}

  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;

  void run() {
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !has_descr) {
        has_descr = true;
        descr = quoted();
      } else if (key == "fortran_order" && !has_order) {
        has_order = true;
        fortran = boolean();
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        tuple();
      } else {
        fail("the keys descr, fortran_order and shape once each");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!has_descr || !has_order || !has_shape) fail("descr, fortran_order and shape");
    skip();
    if (at_ != text_.size()) fail("the end of the header");
  }

 private:
  [[noreturn]] void fail(const std::string& expected) {
    throw_data_error(
        name_, base_ + static_cast<int64_t>(at_), expected + " in an .npy header",
        at_ < text_.size() ? "'" + std::string(text_.substr(at_, 20)) + "'" : "its end",
        "the file is damaged");
  }
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip();
    if (at_ < text_.size() && text_[at_] == c) {
      ++at_;
      return true;
    }
    return false;
  }
  void expect(char c) {
    if (!accept(c)) fail(str("'", c, "'"));
  }
  std::string quoted() {
    skip();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"')
      fail("a quoted text (object and record arrays are not read)");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("a closing quote");
    const std::string out(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return out;
  }
  bool boolean() {
    skip();
    for (const auto& [word, value] : {std::pair{"True"sv, true}, std::pair{"False"sv, false}})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    fail("True or False");
  }
  void tuple() {
    expect('(');
    while (!accept(')')) {
      skip();
      int64_t v = 0;
      const size_t start = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
        if (!checked_multiply(v, 10, &v) ||
            __builtin_add_overflow(v, int64_t{text_[at_] - '0'}, &v))
          fail("a size below 2^63");
        ++at_;
      }
      if (at_ == start) fail("a size");
      if (shape.size() == static_cast<size_t>(Shape::kMaxRank)) fail("at most 8 dimensions");
      shape.push_back(v);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
  }

  std::string_view text_;
  const std::string& name_;
  int64_t base_;
  size_t at_ = 0;
};

// Elements of File at p, converted; Fortran order is read with the first index fastest.
template <class File, class T, class F>
Tensor fill(const uint8_t* p, const std::vector<int64_t>& size, bool fortran, const F& f) {
  Tensor t = Tensor::empty(Shape(size), dtype_of<T>::value);
  T* out = t.data<T>();
  std::vector<int64_t> stride(size.size(), 1), index(size.size(), 0);
  for (size_t d = 1; d < size.size(); ++d) stride[d] = stride[d - 1] * size[d - 1];
  int64_t at = 0;
  for (int64_t i = 0; i < t.numel(); ++i) {
    File v;
    std::memcpy(&v, p + static_cast<size_t>(fortran ? at : i) * sizeof(File), sizeof(File));
    out[i] = f(v);
    if (!fortran) continue;
    for (size_t d = size.size(); d-- > 0;) {
      at += stride[d];
      if (++index[d] < size[d]) break;
      at -= stride[d] * size[d];
      index[d] = 0;
    }
  }
  return t;
}

}  // namespace

Tensor parse_npy(Bytes content, const std::string& name) {
  ByteReader r(content, name);
  if (!as_text(content).starts_with("\x93NUMPY"sv))
    throw_data_error(name, 0, "an .npy file", describe_content(content));
  r.take(6, "the .npy magic");
  const uint8_t major = r.u8("the .npy version");
  r.u8("the .npy version");
  if (major < 1 || major > 3) r.fail(".npy version 1 to 3", str(int{major}));
  const uint64_t length = major == 1 ? r.u16("the header length") : r.u32("the header length");
  const int64_t base = r.offset();
  HeaderParser header(as_text(r.take(length, "the header")), name, base);
  header.run();
  const std::string& d = header.descr;
  const int item = d == "<f8" || d == "<i8"                 ? 8
                   : d == "<f4" || d == "<i4"               ? 4
                   : d == "<f2"                             ? 2
                   : d == "|u1" || d == "|i1" || d == "|b1" ? 1
                                                            : 0;
  if (item == 0)
    throw_data_error(name, base, "elements <f2 <f4 <f8 <i4 <i8 |u1 |i1 or |b1",
                     "'" + d.substr(0, 20) + "'", "convert the array with astype()");
  int64_t bytes = item;
  for (const int64_t n : header.shape)
    if (!checked_multiply(bytes, n, &bytes))
      r.fail("a shape that fits into memory", "a larger one");
  if (static_cast<uint64_t>(bytes) != r.left())
    r.fail(str(bytes, " bytes of data"), str(r.left()), "the file is truncated or damaged");
  const uint8_t* p = content.data() + r.position();
  const std::vector<int64_t>& s = header.shape;
  const auto same = [](auto v) { return v; };
  if (d == "<f4") return fill<float, float>(p, s, header.fortran, same);
  if (d == "<f8") return fill<double, double>(p, s, header.fortran, same);
  if (d == "<f2") return fill<uint16_t, float>(p, s, header.fortran, half_to_float);
  if (d == "<i4") return fill<int32_t, int32_t>(p, s, header.fortran, same);
  if (d == "<i8") return fill<int64_t, int64_t>(p, s, header.fortran, same);
  if (d == "|u1") return fill<uint8_t, uint8_t>(p, s, header.fortran, same);
  if (d == "|i1") return fill<int8_t, int32_t>(p, s, header.fortran, same);
  return fill<uint8_t, bool>(p, s, header.fortran, [](uint8_t v) { return v != 0; });
}

NamedTensors parse_npz(Bytes content, const std::string& name) {
  const ZipArchive zip(content, name);
  NamedTensors out;
  for (const ZipEntry& e : zip.entries()) {
    if (!e.name.ends_with(".npy"))
      throw_data_error(name, -1, "members that end in .npy", e.name.substr(0, 120),
                       "not an .npz file");
    const ZipMember member = zip.read(e);
    out.emplace_back(e.name.substr(0, e.name.size() - 4),
                     parse_npy(member.bytes, name + "/" + e.name));
  }
  return out;
}

NamedTensors read_npz(const std::string& path) {
  const MappedFile file(path);
  return parse_npz(file.bytes(), path);
}

Tensor read_npy(const std::string& path) {
  const MappedFile file(path);
  return parse_npy(file.bytes(), path);
}

}  // namespace mtcki::data

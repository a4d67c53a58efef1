#include <cstring>
#include <optional>

#include "data/formats/pickle.h"
#include "data/sets/cifar.h"

namespace mtcki::data {

namespace {

using Kind = PickleValue::Kind;

// A NumPy array of unsigned bytes or integers, in C order.
struct Array {
  std::vector<int64_t> shape;
  std::string_view type, bytes;  // "u1", "i8", ...: kind and bytes per element

  int64_t numel() const {
    int64_t n = 1;
    for (const int64_t d : shape)
      if (!checked_multiply(n, d, &n)) return -1;
    return n;
  }
  bool whole() const {
    return type.size() == 2 && (type[0] == 'u' || type[0] == 'i') && type[1] >= '1' &&
           type[1] <= '8' && numel() >= 0 && static_cast<uint64_t>(numel()) <= bytes.size() &&
           static_cast<uint64_t>(numel()) * static_cast<uint64_t>(type[1] - '0') == bytes.size();
  }
  int64_t at(size_t i) const {  // little-endian
    const auto width = static_cast<size_t>(type[1] - '0');
    uint64_t v = 0;
    for (size_t b = width; b-- > 0;) v = v << 8 | static_cast<uint8_t>(bytes[i * width + b]);
    const int unused = static_cast<int>(64 - 8 * width);
    return type[0] == 'i' ? static_cast<int64_t>(v << unused) >> unused : static_cast<int64_t>(v);
  }
};

// numpy.core.multiarray, which NumPy 2 calls numpy._core.multiarray.
bool is_numpy(const std::string& called, const char* module, const char* name) {
  return called == std::string("numpy.core.") + module + "." + name ||
         called == std::string("numpy._core.") + module + "." + name;
}

std::string_view type_of(const Pickle& p, const PickleValue& type) {  // dtype('u1', ...)
  if (type.kind != Kind::call || p.called(type) != "numpy.dtype") return "";
  if (type.state && p.at(*type.state).items.size() > 1 &&
      p.at(p.at(*type.state).items[1]).text == ">")
    return "";  // big-endian
  const PickleValue& arguments = p.at(type.items[1]);
  return arguments.items.empty() ? "" : p.at(arguments.items[0]).text;
}

std::vector<int64_t> shape_of(const Pickle& p, const PickleValue& shape) {
  std::vector<int64_t> out;
  for (const PickleRef r : shape.items)
    out.push_back(p.at(r).kind == Kind::integer ? p.at(r).integer : -1);
  return out;
}

// Whether a value says "Fortran order": True, or the text F.
bool is_fortran(const PickleValue& v) {
  return (v.kind == Kind::boolean && v.integer != 0) || v.text == "F";
}

// An array as any protocol stores it: _reconstruct with the state (version, shape, dtype, fortran,
// bytes), or from protocol 5 on _frombuffer(bytes, dtype, shape, order).
std::optional<Array> array_of(const Pickle& p, const PickleValue& v) {
  Array out;
  if (v.kind != Kind::call) return {};
  const std::string called = p.called(v);
  const bool buffer = is_numpy(called, "numeric", "_frombuffer");
  if (!buffer && (!is_numpy(called, "multiarray", "_reconstruct") || !v.state)) return {};
  const PickleValue& parts = buffer ? p.at(v.items[1]) : p.at(*v.state);
  if (parts.kind != Kind::tuple || parts.items.size() != (buffer ? 4u : 5u)) return {};
  const auto part = [&](size_t of_buffer, size_t of_state) -> const PickleValue& {
    return p.at(parts.items[buffer ? of_buffer : of_state]);
  };
  out.bytes = part(0, 4).text;
  out.type = type_of(p, part(1, 2));
  out.shape = shape_of(p, part(2, 1));
  if (part(0, 4).kind != Kind::bytes || is_fortran(part(3, 3)) || !out.whole()) return {};
  return out;
}

// A list of Python or NumPy integers, or an array of them.
std::optional<std::vector<int64_t>> integers_of(const Pickle& p, const PickleValue& v) {
  std::vector<int64_t> out;
  if (const auto array = array_of(p, v)) {
    for (int64_t i = 0; i < array->numel(); ++i) out.push_back(array->at(static_cast<size_t>(i)));
    return out;
  }
  if (v.kind != Kind::list && v.kind != Kind::tuple) return {};
  for (const PickleRef r : v.items) {
    const PickleValue& x = p.at(r);
    if (x.kind == Kind::integer) {
      out.push_back(x.integer);
      continue;
    }
    Array scalar;  // scalar(dtype, bytes)
    if (x.kind != Kind::call || !is_numpy(p.called(x), "multiarray", "scalar")) return {};
    const PickleValue& arguments = p.at(x.items[1]);
    if (arguments.items.size() != 2) return {};
    scalar.type = type_of(p, p.at(arguments.items[0]));
    scalar.bytes = p.at(arguments.items[1]).text;
    if (!scalar.whole()) return {};
    out.push_back(scalar.at(0));
  }
  return out;
}

}  // namespace

LabelledImages parse_cifar_pickle(Bytes content, const std::string& name, bool cifar100) {
  if (const std::string kind = recognise(content); !kind.empty() && kind != "a Python pickle")
    throw_data_error(name, 0, "a CIFAR batch of the Python version", kind);
  const auto fail = [&name](const std::string& expected, const std::string& found) {
    throw_data_error(name, -1, expected, found, "the file is damaged or of another kind");
  };
  ByteReader reader(content, name);
  const Pickle pickle(&reader);
  const char* key = cifar100 ? "fine_labels" : "labels";
  const PickleValue* data = pickle.find(pickle.root(), "data");
  const PickleValue* given = pickle.find(pickle.root(), key);
  if (!data || !given) fail(str("a dict with data and ", key), "none");
  const auto labels = integers_of(pickle, *given);
  if (!labels) fail(str(key, ": a list or an array of integers"), "another value");
  const auto pixels = array_of(pickle, *data);
  const auto n = static_cast<int64_t>(labels->size());
  constexpr int64_t kPixels = 3 * 32 * 32;
  if (!pixels || pixels->type != "u1")
    fail(str(n * kPixels, " bytes of u8 data in C order"), "another value");
  // Rows of 3072, or the same as images: planes first, as everywhere in the set.
  if (pixels->shape != std::vector<int64_t>{n, kPixels} &&
      pixels->shape != std::vector<int64_t>{n, 3, 32, 32})
    fail(str("data of shape (", n, ", 3072) or (", n, ", 3, 32, 32)"),
         str("shape ", pixels->shape.size() <= 8 ? Shape(pixels->shape).to_string() : "of more"));
  LabelledImages out{Tensor::empty({n, 3, 32, 32}, DType::u8), Tensor::empty({n}, DType::i64)};
  if (n > 0) std::memcpy(out.images.raw(), pixels->bytes.data(), pixels->bytes.size());
  for (int64_t i = 0; i < n; ++i) {
    const int64_t label = (*labels)[static_cast<size_t>(i)], most = cifar100 ? 99 : 9;
    if (label < 0 || label > most) fail(str("label ", i, " in 0-", most), str(label));
    out.labels.data<int64_t>()[i] = label;
  }
  return out;
}

}  // namespace mtcki::data

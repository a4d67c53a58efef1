#include "data/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "data/formats/atomic_file.h"
#include "data/formats/half.h"
#include "data/formats/safetensors_header.h"

namespace mtcki::data {

namespace {

constexpr uint64_t kMaxHeader = 100'000'000;

struct DTypeRow {
  const char* name;
  int bits;
};
// In the reference's rank order, low to high: the writer sorts by it.
constexpr DTypeRow kDTypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64}};

int rank_of(const std::string& dtype) {
  for (size_t i = 0; i < std::size(kDTypes); ++i)
    if (dtype == kDTypes[i].name) return static_cast<int>(i);
  return -1;
}

const char* file_dtype(DType d) {
  switch (d) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::bf16:
      return "BF16";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
    case DType::boolean:
      return "BOOL";
  }
  return "";
}

// Copies n elements of File type out of unaligned bytes and converts them.
template <class File, class T, class F>
Tensor convert(const uint8_t* p, const Shape& shape, const F& f) {
  Tensor t = Tensor::empty(shape, dtype_of<T>::value);
  T* out = t.data<T>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    File v;
    std::memcpy(&v, p + static_cast<size_t>(i) * sizeof(File), sizeof(File));
    out[i] = f(v);
  }
  return t;
}

Tensor copy_of(const uint8_t* p, const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  if (t.nbytes() > 0) std::memcpy(t.raw(), p, t.nbytes());
  return t;
}

}  // namespace

SafetensorsView::SafetensorsView(Bytes content, std::string file_name)
    : file_name_(std::move(file_name)) {
  const std::string kind = recognise(content);
  if (!kind.empty() && kind != "a safetensors file")
    throw_data_error(file_name_, 0, "a safetensors file", kind);
  ByteReader reader(content, file_name_);
  const uint64_t n = reader.u64("the header length");
  if (n > kMaxHeader && content.size() > 8 && content[8] != '{')
    throw_data_error(file_name_, 0, "weights (.safetensors, .onnx, or a PyTorch .pth)",
                     describe_content(content));
  if (n > kMaxHeader || n > reader.left())
    throw_data_error(file_name_, 0,
                     str("a header of at most ", std::min<uint64_t>(kMaxHeader, reader.left()),
                         " bytes (file size ", content.size(), ")"),
                     str("a header length of ", n),
                     "the file is truncated or not a safetensors file");
  const Bytes header = reader.take(n, "the header");
  if (header.empty() || header[0] != '{')
    throw_data_error(file_name_, 8, "a header that begins with '{'", describe_content(header));
  SafetensorsHeader parsed = parse_safetensors_header(header, file_name_);
  metadata_ = std::move(parsed.metadata);
  entries_ = std::move(parsed.entries);
  buffer_ = content.subspan(reader.position());

  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  uint64_t previous = 0;
  const auto base = static_cast<int64_t>(reader.position());
  for (const SafetensorsEntry& e : entries_) {
    const auto fail = [&](const std::string& expected, const std::string& found) {
      throw_data_error(file_name_, base + static_cast<int64_t>(previous),
                       str("tensor \"", e.name.substr(0, 120), "\" ", expected), found,
                       "the file is damaged");
    };
    if (e.begin != previous || e.end < e.begin)
      fail(str("to begin at buffer byte ", previous), str("[", e.begin, ", ", e.end, ")"));
    if (e.end > buffer_.size())
      throw_data_error(
          file_name_, base, str(e.end, " bytes of tensors (\"", e.name.substr(0, 120), "\")"),
          str(buffer_.size(), " before the end"), "the file is truncated: fetch it again");
    const int rank = rank_of(e.dtype);
    if (rank >= 0) {
      int64_t bits = kDTypes[rank].bits;
      bool fits = true;
      for (const int64_t d : e.shape) fits = fits && checked_multiply(bits, d, &bits);
      // A product that overflows is only harmless when some later dimension is zero: refuse both.
      if (!fits || bits % 8 != 0 || static_cast<uint64_t>(bits) / 8 != e.end - e.begin)
        fail(str("to have the bytes of its shape ", nlohmann::json(e.shape).dump(), " ", e.dtype),
             str(e.end - e.begin, " bytes"));
    }
    previous = e.end;
  }
  if (previous != buffer_.size())
    throw_data_error(file_name_, base + static_cast<int64_t>(previous),
                     str("a file of ", base + static_cast<int64_t>(previous), " bytes"),
                     str(content.size()), "the file is damaged");
}

Tensor SafetensorsView::get(const SafetensorsEntry& e) const {
  const uint8_t* p = buffer_.data() + e.begin;
  const Shape shape(e.shape);
  if (e.dtype == "F32") return copy_of(p, shape, DType::f32);
  if (e.dtype == "F64") return copy_of(p, shape, DType::f64);
  if (e.dtype == "BF16") return copy_of(p, shape, DType::bf16);
  if (e.dtype == "I64") return copy_of(p, shape, DType::i64);
  if (e.dtype == "I32") return copy_of(p, shape, DType::i32);
  if (e.dtype == "U8") return copy_of(p, shape, DType::u8);
  if (e.dtype == "BOOL") return convert<uint8_t, bool>(p, shape, [](uint8_t v) { return v != 0; });
  if (e.dtype == "F16") return convert<uint16_t, float>(p, shape, half_to_float);
  if (e.dtype == "I8") return convert<int8_t, int32_t>(p, shape, [](int8_t v) { return v; });
  if (e.dtype == "I16") return convert<int16_t, int32_t>(p, shape, [](int16_t v) { return v; });
  if (e.dtype == "U16") return convert<uint16_t, int32_t>(p, shape, [](uint16_t v) { return v; });
  if (e.dtype == "U32") return convert<uint32_t, int64_t>(p, shape, [](uint32_t v) { return v; });
  throw_data_error(file_name_, -1, str("tensor \"", e.name.substr(0, 120), "\" in a known dtype"),
                   e.dtype.substr(0, 40), "convert it to F32 with the tool that wrote it");
}

StateFile parse_safetensors(Bytes content, const std::string& file_name) {
  const SafetensorsView view(content, file_name);
  StateFile out;
  out.metadata = view.metadata();
  out.tensors.reserve(view.entries().size());
  for (const SafetensorsEntry& e : view.entries()) out.tensors.emplace_back(e.name, view.get(e));
  return out;
}

StateFile read_safetensors(const std::string& path) {
  const MappedFile file(path);
  return parse_safetensors(file.bytes(), path);
}

std::string safetensors_header(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata,
                               std::vector<size_t>* order) {
  order->resize(tensors.size());
  std::iota(order->begin(), order->end(), size_t{0});
  const auto rank = [&](size_t i) { return rank_of(file_dtype(tensors[i].second.dtype())); };
  std::sort(order->begin(), order->end(), [&](size_t a, size_t b) {
    const int ra = rank(a), rb = rank(b);
    return ra != rb ? ra > rb : tensors[a].first < tensors[b].first;
  });
  // dump() escapes as the reference does and rejects invalid UTF-8.
  const auto quoted = [](const std::string& s) {
    try {
      return nlohmann::json(s).dump();
    } catch (const nlohmann::json::exception&) {
      throw UsageError("write_safetensors: a name or metadata text is not valid UTF-8");
    }
  };
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) text += quoted(key) + ":" + quoted(value) + ",";
    text.back() = '}';
    text += ",";
  }
  uint64_t at = 0;
  std::unordered_set<std::string> names;
  for (const size_t i : *order) {
    const auto& [name, tensor] = tensors[i];
    if (!tensor.defined())
      throw UsageError("write_safetensors: tensor \"" + name + "\" is undefined");
    if (name == "__metadata__")
      throw UsageError("write_safetensors: __metadata__ is a reserved name");
    if (!names.insert(name).second)
      throw UsageError("write_safetensors: two tensors are named \"" + name + "\"");
    const uint64_t end = at + tensor.nbytes();
    text += quoted(name) + ":{\"dtype\":\"" + file_dtype(tensor.dtype()) +
            "\",\"shape\":" + nlohmann::json(tensor.shape().vec()).dump() +
            str(",\"data_offsets\":[", at, ",", end, "]},");
    at = end;
  }
  if (text.back() == ',') text.pop_back();
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(text.size() >> (8 * i));
  return out + text;
}

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order;
  const std::string header = safetensors_header(tensors, metadata, &order);
  uint64_t total = header.size();
  for (const auto& named : tensors) total += named.second.nbytes();
  AtomicFile file(path, total);
  file.write(header);
  for (const size_t i : order) {
    const Tensor t = tensors[i].second.to(Device::cpu()).plain();
    if (t.nbytes() > 0) file.write(t.raw(), t.nbytes());
  }
  file.commit();
}

}  // namespace mtcki::data

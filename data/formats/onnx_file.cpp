#include "data/formats/onnx_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <set>
#include <sstream>

#include "data/formats/half.h"
#include "data/formats/protobuf_read.h"

namespace mtcki::data {

namespace {

// TensorProto.DataType
enum ElementType {
  kF32 = 1,
  kU8 = 2,
  kI8 = 3,
  kI32 = 6,
  kI64 = 7,
  kBool = 9,
  kF16 = 10,
  kF64 = 11,
  kBf16 = 16
};

int64_t bytes_of(int64_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kF16:
    case kBf16:
      return 2;
    case kF32:
    case kI32:
      return 4;
    case kI64:
    case kF64:
      return 8;
    default:
      return 0;
  }
}

// What a TensorProto holds, of which one of the fields is the content.
struct TensorFields {
  std::vector<int64_t> sizes, i32s, i64s;
  std::vector<float> f32s;
  std::vector<double> f64s;
  int64_t type = 0;
  std::string name;
  bool has_raw = false, is_external = false;
  Bytes raw;
  std::map<std::string, std::string> external;  // location, offset, length
};

constexpr size_t kMostNodes = 1 << 16;  // a hundred times those of a large classifier

class Parser {
 public:
  Parser(const std::string& file, const std::string& folder) : file_(file), folder_(folder) {}

  OnnxModel model(ProtoReader in) {
    bool has_graph = false;
    while (in.next()) {
      if (in.field() == 7) {
        if (has_graph) in.fail("one graph");
        has_graph = true;
        graph(in.message());
      } else if (in.field() == 8) {
        opset(in.message());
      } else if (in.field() == 14) {
        const auto [key, value] = entry(in.message());
        out_.metadata[key] = value;
      } else if (in.field() == 25) {
        throw_data_error(file_, -1, "nodes of ONNX's own operators", "functions of the model's own",
                         "python3 -c \"import onnx, onnx.inliner as i; "
                         "onnx.save(i.inline_local_functions(onnx.load('IN')), 'OUT')\" writes a "
                         "model without them");
      }
    }
    if (!has_graph || out_.opset == 0) in.fail("an ONNX model with a graph and its opset");
    std::erase_if(out_.inputs,
                  [&](const OnnxValue& v) { return out_.initializers.count(v.name) > 0; });
    return std::move(out_);
  }
  const std::set<std::string>& external_files() const { return external_; }

 private:
  static std::pair<std::string, std::string> entry(ProtoReader in) {
    std::pair<std::string, std::string> out;
    while (in.next()) {
      if (in.field() == 1) out.first = in.text();
      if (in.field() == 2) out.second = in.text();
    }
    return out;
  }

  void opset(ProtoReader in) {
    std::string domain;
    int64_t version = 0;
    while (in.next()) {
      if (in.field() == 1) domain = in.text();
      if (in.field() == 2) version = in.integer();
    }
    if (domain.empty() || domain == "ai.onnx") out_.opset = version;
  }

  void graph(ProtoReader in) {
    while (in.next()) {
      if (in.field() == 1) out_.nodes.push_back(node(in.message()));
      if (out_.nodes.size() > kMostNodes) in.fail(str("at most ", kMostNodes, " nodes"));
      if (in.field() == 5) {
        TensorFields t = fields(in.message());
        const std::string name = t.name;
        out_.types[name] = t.type;
        if (!out_.initializers.emplace(name, tensor(std::move(t))).second)
          in.fail("every initializer once, but \"" + name.substr(0, 80) + "\"");
      }
      if (in.field() == 11) out_.inputs.push_back(value(in.message()));
      if (in.field() == 12) out_.outputs.push_back(value(in.message()));
      if (in.field() == 15) in.fail("a graph without sparse initializers");
    }
  }

  OnnxNode node(ProtoReader in) {
    OnnxNode n;
    std::string domain;
    while (in.next()) {
      if (in.field() == 1) n.inputs.push_back(in.text());
      if (in.field() == 2) n.outputs.push_back(in.text());
      if (in.field() == 3) n.name = in.text();
      if (in.field() == 4) n.op = in.text();
      if (in.field() == 5) {
        auto [name, a] = attribute(in.message());
        n.attributes[name] = std::move(a);
      }
      if (in.field() == 7) domain = in.text();
    }
    if (!domain.empty() && domain != "ai.onnx") n.op = domain + "::" + n.op;
    return n;
  }

  std::pair<std::string, OnnxAttribute> attribute(ProtoReader in) {
    std::pair<std::string, OnnxAttribute> out;
    OnnxAttribute& a = out.second;
    while (in.next()) switch (in.field()) {
        case 1:
          out.first = in.text();
          break;
        case 2:
          a.real = in.real32();
          break;
        case 3:
          a.integer = in.integer();
          break;
        case 4:
          a.text = in.text();
          break;
        case 5:
          a.tensor = tensor(fields(in.message()), &a.type);
          break;
        case 7:
          in.reals32(&a.reals);
          break;
        case 8:
          in.integers(&a.integers);
          break;
        default:
          break;  // graphs of control flow, whose operators nobody takes
      }
    return out;
  }

  static OnnxValue value(ProtoReader in) {
    OnnxValue v;
    while (in.next()) {
      if (in.field() == 1) v.name = in.text();
      if (in.field() != 2) continue;
      for (ProtoReader type = in.message(); type.next();) {
        if (type.field() != 1) continue;
        for (ProtoReader t = type.message(); t.next();) {
          if (t.field() == 1) {
            const int64_t kind = t.integer();
            v.is_real = kind == 1 || kind == 10 || kind == 11 || kind == 16;
          }
          if (t.field() != 2) continue;
          for (ProtoReader shape = t.message(); shape.next();) {
            if (shape.field() != 1) continue;
            v.sizes.push_back(-1);
            for (ProtoReader dim = shape.message(); dim.next();)
              if (dim.field() == 1) v.sizes.back() = dim.integer();
          }
        }
      }
    }
    return v;
  }

  static TensorFields fields(ProtoReader in) {
    TensorFields t;
    while (in.next()) switch (in.field()) {
        case 1:
          in.integers(&t.sizes);
          break;
        case 2:
          t.type = in.integer();
          break;
        case 4:
          in.reals32(&t.f32s);
          break;
        case 5:
          in.integers(&t.i32s);
          break;
        case 7:
          in.integers(&t.i64s);
          break;
        case 8:
          t.name = in.text();
          break;
        case 9:
          t.has_raw = true, t.raw = in.bytes();
          break;
        case 10:
          in.reals64(&t.f64s);
          break;
        case 13:
          t.external.insert(entry(in.message()));
          break;
        case 14:
          t.is_external = in.integer() == 1;
          break;
        default:
          break;
      }
    return t;
  }

  [[noreturn]] void bad(const TensorFields& t, const std::string& expected,
                        const std::string& found) const {
    throw_data_error(file_, -1, expected + " in tensor \"" + t.name.substr(0, 80) + "\"", found,
                     "the file is damaged, or written by something unusual");
  }

  int64_t numel(const TensorFields& t) const {
    if (t.sizes.size() > static_cast<size_t>(Shape::kMaxRank))
      bad(t, str("at most ", int{Shape::kMaxRank}, " dimensions"), std::to_string(t.sizes.size()));
    int64_t n = 1;
    for (const int64_t size : t.sizes)
      if (!checked_multiply(n, size, &n)) bad(t, "sizes below 2^63", std::to_string(size));
    return n;
  }

  // The content as numbers of its own type, or from the field that holds them converted.
  Tensor tensor(TensorFields t, int64_t* type = nullptr) {
    if (type) *type = t.type;
    const int64_t n = numel(t), item = bytes_of(t.type);
    int64_t bytes = 0;
    if (item == 0)
      bad(t, "numbers (f32, f64, f16, bf16, i64, i32, u8, i8, bool)", str("element type ", t.type));
    if (!checked_multiply(n, item, &bytes)) bad(t, "a size below 2^63", std::to_string(n));
    std::unique_ptr<MappedFile> beside;
    if (t.is_external) {
      t.raw = external(t, bytes, &beside);
      t.has_raw = true;
    }
    if (t.has_raw) {
      if (static_cast<int64_t>(t.raw.size()) != bytes)
        bad(t, str(bytes, " bytes"), std::to_string(t.raw.size()));
      return from_raw(t, n);
    }
    const Shape shape(t.sizes);
    const auto require = [&](size_t count) {
      if (static_cast<int64_t>(count) != n) bad(t, str(n, " values"), std::to_string(count));
    };
    if (t.type == kF32) {
      require(t.f32s.size());
      return Tensor::from(t.f32s, shape);
    }
    if (t.type == kF64) {
      require(t.f64s.size());
      return Tensor::from(t.f64s, shape).to(DType::f32);
    }
    if (t.type == kI64) {
      require(t.i64s.size());
      return Tensor::from(t.i64s, shape);
    }
    require(t.i32s.size());
    if (t.type != kF16 && t.type != kBf16) return Tensor::from(t.i32s, shape);
    std::vector<float> values;
    for (const int64_t bits : t.i32s)
      values.push_back(from_half(t.type, static_cast<uint16_t>(bits)));
    return Tensor::from(values, shape);
  }

  static float from_half(int64_t type, uint16_t bits) {
    return type == kF16 ? half_to_float(bits) : std::bit_cast<float>(uint32_t{bits} << 16);
  }

  template <class File, class T, class F>
  static Tensor converted(Bytes raw, const Shape& shape, int64_t n, const F& f) {
    Tensor out = Tensor::empty(shape, dtype_of<T>::value);
    for (int64_t i = 0; i < n; ++i) {
      File v;
      std::memcpy(&v, raw.data() + static_cast<size_t>(i) * sizeof(File), sizeof(File));
      out.data<T>()[i] = static_cast<T>(f(v));
    }
    return out;
  }
  static Tensor from_raw(const TensorFields& t, int64_t n) {
    const Shape shape(t.sizes);
    const auto same = [](auto v) { return v; };
    switch (t.type) {
      case kF32:
        return converted<float, float>(t.raw, shape, n, same);
      case kF64:
        return converted<double, float>(t.raw, shape, n, same);
      case kI64:
        return converted<int64_t, int64_t>(t.raw, shape, n, same);
      case kI32:
        return converted<int32_t, int64_t>(t.raw, shape, n, same);
      case kI8:
        return converted<int8_t, int64_t>(t.raw, shape, n, same);
      case kU8:
      case kBool:
        return converted<uint8_t, int64_t>(t.raw, shape, n, same);
      default:
        return converted<uint16_t, float>(
            t.raw, shape, n, [type = t.type](uint16_t v) { return from_half(type, v); });
    }
  }

  Bytes external(const TensorFields& t, int64_t bytes, std::unique_ptr<MappedFile>* file) {
    const auto text = [&](const char* key) {
      const auto it = t.external.find(key);
      return it == t.external.end() ? std::string() : it->second;
    };
    const auto number = [&](const char* key) {
      const std::string s = text(key);
      if (s.size() > 18 ||
          !std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
        bad(t, str("a number as ", key), "\"" + s.substr(0, 40) + "\"");
      return s.empty() ? int64_t{0} : static_cast<int64_t>(std::stoll(s));
    };
    const std::string name = text("location");
    if (name.empty() || std::filesystem::path(name).filename() != name || name.starts_with("."))
      bad(t, "external data in a file beside the model", "\"" + name.substr(0, 80) + "\"");
    if (folder_.empty()) bad(t, "its content in the model", "external data");
    external_.insert(name);
    const std::string path = (std::filesystem::path(folder_) / name).string();
    if (!file_exists(path))
      throw_data_error(path, -1, "the data of " + file_, "no such file",
                       "an ONNX model with external data is two files; keep them together");
    *file = std::make_unique<MappedFile>(path);
    const Bytes all = (*file)->bytes();
    const int64_t offset = number("offset"), size = static_cast<int64_t>(all.size());
    // Each byte belongs to one tensor, or a small file could claim any amount of memory.
    int64_t& taken = taken_[name];
    if (offset > size || bytes > size - offset || bytes > size - taken)
      throw_data_error(path, offset, str(bytes, " bytes of \"", t.name.substr(0, 80), "\""),
                       str(std::max<int64_t>(0, size - offset), " bytes"),
                       "the file is cut, or not of this model");
    taken += bytes;
    return all.subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

  const std::string& file_;
  std::string folder_;
  std::set<std::string> external_;
  std::map<std::string, int64_t> taken_;  // bytes of each of them
  OnnxModel out_;
};

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// Mean and deviation per channel, if both are numbers. Others write them in brackets, too, and for
// bytes.
void take_normalisation(const std::map<std::string, std::string>& metadata, StateFile* out) {
  std::vector<double> all[2];
  bool given = false, good = true, bytes = false;
  for (const size_t i : {size_t{0}, size_t{1}}) {
    const auto it = metadata.find(i == 0 ? "mean" : "std");
    if (it == metadata.end()) continue;
    given = true;
    std::string text = it->second;
    for (char& c : text)
      if (std::string_view("[](),;").find(c) != std::string_view::npos) c = ' ';
    std::istringstream in(text);
    for (double v = 0; in >> v;) {
      all[i].push_back(v);
      bytes = bytes || v > 1;
      good = good && (i == 0 || v > 0);
    }
    good = good && in.eof();
  }
  if (!given) return;
  good = good && !all[0].empty() && all[0].size() == all[1].size();
  if (!good || bytes)
    out->notes.push_back(good ? "its mean and std are those of bytes: divided by 255"
                              : "its metadata's mean and std are not taken, as they are not one "
                                "number per channel, std above 0: give mean and std");
  for (const size_t i : {size_t{0}, size_t{1}}) {
    std::ostringstream list;
    for (const double v : all[i])
      list << std::setprecision(17) << (list.tellp() > 0 ? "," : "") << (bytes ? v / 255 : v);
    if (good) out->metadata[i == 0 ? "mtcki.mean" : "mtcki.std"] = list.str();
  }
}

}  // namespace

bool has_channels_last(const OnnxModel& model) {
  if (model.inputs.size() != 1 || model.inputs[0].sizes.size() != 4) return false;
  const OnnxValue& in = model.inputs[0];
  const auto few = [](int64_t n) { return n > 0 && n <= 4; };
  if (!few(in.sizes[3]) || few(in.sizes[1])) return false;
  if (in.sizes[1] > 0) return true;
  for (const OnnxNode& n : model.nodes)
    if (!n.inputs.empty() && n.inputs[0] == in.name) return n.op == "Transpose";
  return false;
}

bool is_onnx(const std::string& path) { return path.ends_with(".onnx"); }

OnnxModel parse_onnx(Bytes content, const std::string& file_name, const std::string& folder) {
  return Parser(file_name, folder).model(ProtoReader(content, file_name));
}

OnnxModel read_onnx(const std::string& path) {
  const MappedFile file(path);
  if (const std::string kind = recognise(file.bytes()); !kind.empty())
    throw_data_error(path, 0, "an ONNX model", kind);
  return parse_onnx(file.bytes(), path, folder_of(path));
}

StateFile read_onnx_state(const std::string& path) {
  OnnxModel model = read_onnx(path);
  StateFile out;
  for (auto& [name, t] : model.initializers) out.tensors.emplace_back(name, std::move(t));
  out.metadata["mtcki.arch"] = "onnx";
  take_normalisation(model.metadata, &out);
  if (const auto names = model.metadata.find("classes"); names != model.metadata.end())
    out.metadata["mtcki.classes"] = names->second;
  return out;
}

std::vector<std::string> onnx_data_files(const std::string& path) {
  const MappedFile file(path);
  Parser parser(path, folder_of(path));
  parser.model(ProtoReader(file.bytes(), path));
  std::vector<std::string> out;
  for (const std::string& name : parser.external_files())
    out.push_back((std::filesystem::path(folder_of(path)) / name).string());
  return out;
}

}  // namespace mtcki::data

#include "data/formats/torch_tensors.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "data/formats/half.h"

namespace mtcki::data {

namespace {

using Kind = PickleValue::Kind;

constexpr const char* kGlobals[] = {"collections OrderedDict",
                                    "torch._utils _rebuild_tensor",
                                    "torch._utils _rebuild_tensor_v2",
                                    "torch._utils _rebuild_parameter",
                                    "torch Size",
                                    "torch FloatStorage",
                                    "torch DoubleStorage",
                                    "torch HalfStorage",
                                    "torch BFloat16Storage",
                                    "torch LongStorage",
                                    "torch IntStorage",
                                    "torch ShortStorage",
                                    "torch CharStorage",
                                    "torch ByteStorage",
                                    "torch BoolStorage"};

struct StorageRow {
  std::string_view name;
  char type;
  int item;
};
constexpr StorageRow kStorages[] = {{"FloatStorage", 'f', 4}, {"DoubleStorage", 'd', 8},
                                    {"HalfStorage", 'h', 2},  {"BFloat16Storage", 'b', 2},
                                    {"LongStorage", 'l', 8},  {"IntStorage", 'i', 4},
                                    {"ShortStorage", 's', 2}, {"CharStorage", 'c', 1},
                                    {"ByteStorage", 'B', 1},  {"BoolStorage", 'o', 1}};

constexpr const char* kWrappers[] = {"state_dict", "net", "model"};

bool is_text(const PickleValue& v) { return v.kind == Kind::text || v.kind == Kind::bytes; }

class StateWalker {
 public:
  StateWalker(const Pickle& pickle, const std::string& file_name, uint64_t file_bytes,
              const std::function<TorchStorage(const TorchStorageId&)>& storage)
      : pickle_(pickle),
        file_(file_name),
        storage_(storage),
        allowed_(8 * file_bytes + (1 << 20)) {}

  StateFile run() {
    const PickleValue* dict = &pickle_.root();
    for (int depth = 0;; ++depth) {
      if (dict->kind != Kind::dict)
        fail("a state dict",
             depth == 0 ? "a file that holds something else" : "another value under it",
             "save model.state_dict()");
      const PickleValue* inner = nullptr;
      for (const char* key : kWrappers)
        if (!inner) {
          const PickleValue* v = pickle_.find(*dict, key);
          if (v && v->kind == Kind::dict) inner = v;
        }
      if (!inner || depth == 4) break;
      collect_metadata(*dict);
      dict = inner;
    }
    std::string keys;
    for (size_t i = 0; i < dict->items.size(); i += 2) {
      const PickleValue& key = pickle_.at(dict->items[i]);
      const PickleValue& value = pickle_.at(dict->items[i + 1]);
      const std::string name(is_text(key) ? key.text.substr(0, 300) : std::string_view("?"));
      if (keys.size() < 200) keys += (keys.empty() ? "" : ", ") + name;
      if (is_text(key) && value.kind == Kind::call)
        out_.tensors.emplace_back(name, tensor(value, name));
      // Counters beside the tensors are kept; None, lists and dicts carry no weights.
      else if (is_text(key))
        add_metadata(name, value);
    }
    if (out_.tensors.empty())
      fail("tensors in a state dict, or under state_dict, net or model",
           keys.empty() ? "an empty dict" : "the keys " + keys, "save model.state_dict()");
    std::vector<std::string_view> names;
    for (const auto& t : out_.tensors) names.push_back(t.first);
    std::sort(names.begin(), names.end());
    if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
      fail("distinct names", "\"" + std::string(*twice) + "\" twice", "");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& expected, const std::string& found,
                         const std::string& next = "the file is damaged") {
    throw_data_error(file_, -1, expected, found, next);
  }

  void collect_metadata(const PickleValue& dict) {
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue& key = pickle_.at(dict.items[i]);
      if (is_text(key))
        add_metadata(std::string(key.text.substr(0, 300)), pickle_.at(dict.items[i + 1]));
    }
  }

  void add_metadata(const std::string& name, const PickleValue& v) {
    char buffer[64];
    switch (v.kind) {
      case Kind::boolean:
        out_.metadata[name] = v.integer ? "true" : "false";
        break;
      case Kind::integer:
        out_.metadata[name] = std::to_string(v.integer);
        break;
      case Kind::real: {
        const auto end = std::to_chars(buffer, buffer + sizeof buffer, v.real).ptr;
        out_.metadata[name] = std::string(buffer, end);
        break;
      }
      case Kind::text:
        if (v.text.size() <= 300) out_.metadata[name] = std::string(v.text);
        break;
      default:
        break;
    }
  }

  const PickleValue& argument(const PickleValue& tuple, size_t i, Kind kind,
                              const std::string& name) {
    if (i >= tuple.items.size() || pickle_.at(tuple.items[i]).kind != kind)
      fail(str("tensor \"", name, "\": argument ", i, " of its kind"), "another");
    return pickle_.at(tuple.items[i]);
  }

  std::vector<int64_t> integers(const PickleValue& tuple, const std::string& name) {
    std::vector<int64_t> out;
    if (tuple.items.size() > static_cast<size_t>(Shape::kMaxRank))
      fail(str("tensor \"", name, "\" of at most 8 dimensions"), str(tuple.items.size()));
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      const int64_t v = argument(tuple, i, Kind::integer, name).integer;
      if (v < 0) fail(str("tensor \"", name, "\" with sizes and strides >= 0"), str(v));
      out.push_back(v);
    }
    return out;
  }

  Tensor tensor(const PickleValue& outer, const std::string& name) {
    const PickleValue* call = &outer;
    const PickleValue* arguments = &pickle_.at(call->items[1]);
    if (pickle_.is_global(pickle_.at(call->items[0]), "torch._utils", "_rebuild_parameter")) {
      call = &argument(*arguments, 0, Kind::call, name);
      arguments = &pickle_.at(call->items[1]);
    }
    const PickleValue& f = pickle_.at(call->items[0]);
    if (!pickle_.is_global(f, "torch._utils", "_rebuild_tensor_v2") &&
        !pickle_.is_global(f, "torch._utils", "_rebuild_tensor"))
      fail(str("tensor \"", name, "\" as a tensor"), std::string(f.name), "");
    const TorchStorageId id =
        torch_storage_id(pickle_, argument(*arguments, 0, Kind::persistent, name), file_);
    const int64_t offset = argument(*arguments, 1, Kind::integer, name).integer;
    const std::vector<int64_t> size = integers(argument(*arguments, 2, Kind::tuple, name), name);
    const std::vector<int64_t> stride = integers(argument(*arguments, 3, Kind::tuple, name), name);
    if (offset < 0 || size.size() != stride.size())
      fail(str("tensor \"", name, "\" with one stride per size and an offset >= 0"), "otherwise");
    const TorchStorage s = storage_(id);
    const int64_t count = id.view_count >= 0 ? id.view_count : s.count;
    // Inside its storage, without overlap: numel <= count bounds the allocation as well.
    int64_t numel = 1, last = offset, span = 0;
    bool good = true;
    for (size_t d = 0; d < size.size(); ++d)
      good = good && checked_multiply(numel, size[d], &numel);
    if (good && numel > 0)
      for (size_t d = 0; d < size.size(); ++d)
        good = good && checked_multiply(size[d] - 1, stride[d], &span) &&
               !__builtin_add_overflow(last, span, &last);
    if (!good || numel > count || (numel > 0 && last >= count))
      fail(str("tensor \"", name, "\" inside its storage of ", count, " elements"),
           str("offset ", offset, ", shape ", size.empty() ? "[]" : Shape(size).to_string()));
    const uint64_t bytes = static_cast<uint64_t>(numel) * 8;
    if (bytes > allowed_) fail("tensors no larger than the file can hold", "larger ones");
    allowed_ -= bytes;
    return dense(s, id.view_offset + offset, size, stride);
  }

  template <class File, class T, class F>
  Tensor gather(const TorchStorage& s, int64_t start, const std::vector<int64_t>& size,
                const std::vector<int64_t>& stride, const F& f) {
    Tensor t = Tensor::empty(Shape(size), dtype_of<T>::value);
    T* out = t.template data<T>();
    const int64_t n = t.numel();
    std::vector<int64_t> index(size.size(), 0);
    int64_t at = start;
    for (int64_t i = 0; i < n; ++i) {
      File v;
      std::memcpy(&v, s.bytes.data() + at * static_cast<int64_t>(sizeof(File)), sizeof(File));
      out[i] = f(v);
      for (size_t d = size.size(); d-- > 0;) {  // odometer
        at += stride[d];
        if (++index[d] < size[d]) break;
        at -= stride[d] * size[d];
        index[d] = 0;
      }
    }
    return t;
  }

  Tensor dense(const TorchStorage& s, int64_t start, const std::vector<int64_t>& size,
               const std::vector<int64_t>& stride) {
    const auto same = [](auto v) { return v; };
    switch (s.type) {
      case 'f':
        return gather<float, float>(s, start, size, stride, same);
      case 'd':
        return gather<double, double>(s, start, size, stride, same);
      case 'h':
        return gather<uint16_t, float>(s, start, size, stride, half_to_float);
      case 'b':
        return gather<uint16_t, bfloat16>(s, start, size, stride, [](uint16_t v) {
          bfloat16 b;
          b.bits = v;
          return b;
        });
      case 'l':
        return gather<int64_t, int64_t>(s, start, size, stride, same);
      case 'i':
        return gather<int32_t, int32_t>(s, start, size, stride, same);
      case 's':
        return gather<int16_t, int32_t>(s, start, size, stride, same);
      case 'c':
        return gather<int8_t, int32_t>(s, start, size, stride, same);
      case 'B':
        return gather<uint8_t, uint8_t>(s, start, size, stride, same);
      default:
        return gather<uint8_t, bool>(s, start, size, stride, [](uint8_t v) { return v != 0; });
    }
  }

  const Pickle& pickle_;
  const std::string& file_;
  const std::function<TorchStorage(const TorchStorageId&)>& storage_;
  uint64_t allowed_;
  StateFile out_;
};

}  // namespace

std::span<const char* const> torch_globals() { return kGlobals; }

int torch_item_size(std::string_view name, char* type) {
  for (const StorageRow& row : kStorages)
    if (row.name == name) {
      *type = row.type;
      return row.item;
    }
  return 0;
}

TorchStorageId torch_storage_id(const Pickle& pickle, const PickleValue& persistent,
                                const std::string& file_name) {
  const auto fail = [&file_name](const char* expected) {
    throw_data_error(file_name, -1, expected, "something else", "the file is damaged");
  };
  const PickleValue& id = pickle.at(persistent.items[0]);
  if (id.kind != Kind::tuple || id.items.size() < 5 || id.items.size() > 6)
    fail("a storage id of 5 or 6 values");
  const PickleValue &tag = pickle.at(id.items[0]), &type = pickle.at(id.items[1]),
                    &key = pickle.at(id.items[2]), &count = pickle.at(id.items[4]);
  if (!is_text(tag) || tag.text != "storage" || type.kind != Kind::global || !is_text(key) ||
      count.kind != Kind::integer || count.integer < 0)
    fail("a storage id ('storage', type, key, location, count)");
  TorchStorageId out;
  out.type_name = type.name;
  out.key = key.text;
  out.count = count.integer;
  out.item = torch_item_size(type.name, &out.type);
  if (out.item == 0) fail("a storage of a known type");
  if (id.items.size() == 6 && pickle.at(id.items[5]).kind != Kind::none) {
    const PickleValue& view = pickle.at(id.items[5]);
    if (view.kind != Kind::tuple || view.items.size() != 3) fail("a view of (key, offset, size)");
    const PickleValue &at = pickle.at(view.items[1]), &n = pickle.at(view.items[2]);
    if (at.kind != Kind::integer || n.kind != Kind::integer || at.integer < 0 || n.integer < 0 ||
        at.integer > out.count || n.integer > out.count - at.integer)
      fail("a view inside its storage");
    out.view_offset = at.integer;
    out.view_count = n.integer;
  }
  return out;
}

StateFile torch_state(const Pickle& pickle, const std::string& file_name, uint64_t file_bytes,
                      const std::function<TorchStorage(const TorchStorageId&)>& storage) {
  return StateWalker(pickle, file_name, file_bytes, storage).run();
}

}  // namespace mtcki::data

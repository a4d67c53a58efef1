#include "data/formats/torch_tensors.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "data/formats/half.h"

namespace mtcki::data {

namespace {

using Kind = PickleValue::Kind;

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

// Under which the field's training programs keep the weights, in the order in which they are looked
// for.
constexpr const char* kWrappers[] = {
    "state_dict", "model_state_dict", "net",     "model", "model_state",
    "weights",    "params",           "network", "state", "module"};

constexpr int64_t kMostVisited = 1000000;  // values among which weights are looked for

bool is_text(const PickleValue& v) { return v.kind == Kind::text || v.kind == Kind::bytes; }

class StateWalker {
 public:
  StateWalker(const Pickle& pickle, const std::string& file_name, uint64_t file_bytes,
              const std::function<TorchStorage(const TorchStorageId&)>& storage,
              const std::string& key)
      : pickle_(pickle),
        file_(file_name),
        storage_(storage),
        key_(key),
        allowed_(8 * file_bytes + (1 << 20)) {}

  StateFile run() {
    const PickleValue* dict = &pickle_.root();
    if (!key_.empty()) {
      dict = chosen(*dict);
    } else if (dict->kind == Kind::list && dict->items.size() == 1) {
      dict = &pickle_.at(dict->items[0]);
    }
    for (int depth = 0; dict->kind == Kind::dict && depth < 4; ++depth) {
      const PickleValue* inner = wrapped(*dict);
      if (!inner) break;
      collect_metadata(*dict);
      dict = inner;
    }
    if (key_.empty() && !is_state_dict(*dict)) dict = only_weights(*dict);
    if (dict->kind != Kind::dict) refuse_root(*dict);
    collect_tensors(*dict);
    if (out_.tensors.empty() && !out_.unread.empty() &&
        out_.unread.begin()->second.find("numpy") != std::string::npos)
      fail("tensors in a state dict", "NumPy arrays",
           "save torch.from_numpy(v) of each value v in its place");
    if (out_.tensors.empty())
      fail("tensors in a state dict" + (key_.empty() ? "" : " under " + key_),
           dict->items.empty() ? "an empty dict" : "the keys " + keys_of(*dict),
           "say where the weights are: weights_key (--weights-key), or save model.state_dict()");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& expected, const std::string& found,
                         const std::string& next = "the file is damaged") {
    throw_data_error(file_, -1, expected, found, next);
  }

  // The keys of a dict or the indices of a list, for people.
  std::string keys_of(const PickleValue& v) const {
    if (v.kind == Kind::list || v.kind == Kind::tuple)
      return v.items.empty() ? "none" : str("0 to ", v.items.size() - 1);
    std::string out;
    for (size_t i = 0; v.kind == Kind::dict && i < v.items.size() && out.size() < 300; i += 2) {
      const PickleValue& key = pickle_.at(v.items[i]);
      out += (out.empty() ? "" : ", ") + std::string(is_text(key) ? key.text.substr(0, 80) : "?");
    }
    return out.empty() ? "none" : out;
  }

  // key_ is a path of dotted names and indices; a name may hold dots itself.
  const PickleValue* chosen(const PickleValue& root) {
    const PickleValue* at = &root;
    std::string_view rest = key_;
    while (!rest.empty()) {
      const PickleValue* next = nullptr;
      size_t used = rest.size();
      while (!(next = member(*at, rest.substr(0, used)))) {
        used = used == 0 ? std::string_view::npos : rest.rfind('.', used - 1);
        if (used == std::string_view::npos)
          fail(str("weights_key \"", key_, "\" in the file"), "the keys " + keys_of(*at),
               "choose one of them");
      }
      at = next;
      rest = used < rest.size() ? rest.substr(used + 1) : std::string_view();
    }
    return at;
  }
  const PickleValue* member(const PickleValue& v, std::string_view name) const {
    if (v.kind != Kind::list && v.kind != Kind::tuple) return pickle_.find(v, name);
    size_t index = 0;
    const auto end = std::from_chars(name.data(), name.data() + name.size(), index);
    if (end.ec != std::errc() || end.ptr != name.data() + name.size() || index >= v.items.size())
      return nullptr;
    return &pickle_.at(v.items[index]);
  }

  const PickleValue* wrapped(const PickleValue& dict) {
    const PickleValue* inner = nullptr;
    std::string found;
    for (const char* key : kWrappers) {
      const PickleValue* v = pickle_.find(dict, key);
      if (inner || !v) continue;
      if (v->kind == Kind::call && is_module(*v)) refuse_root(*v);
      if (v->kind != Kind::dict || !holds_weights(*v)) continue;
      inner = v;
      found = key;
    }
    if (!inner) return nullptr;
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue &key = pickle_.at(dict.items[i]), &v = pickle_.at(dict.items[i + 1]);
      const bool averaged = is_text(key) && key.text.find("ema") != std::string_view::npos;
      if (is_text(key) && &v != inner && v.kind == Kind::dict && (averaged || is_state_dict(v)))
        out_.notes.push_back(str("took ", found, "; other weights lie beside it: weights_key = \"",
                                 key.text.substr(0, 80), "\" takes them"));
    }
    return inner;
  }

  // Holds weights itself: what an optimiser keeps beside them has other names.
  bool is_state_dict(const PickleValue& dict) const {
    const PickleValue* arguments = nullptr;
    for (size_t i = 0; dict.kind == Kind::dict && i + 1 < dict.items.size(); i += 2) {
      const PickleValue &key = pickle_.at(dict.items[i]), &v = pickle_.at(dict.items[i + 1]);
      if (is_text(key) && key.text.find("weight") != std::string_view::npos &&
          v.kind == Kind::call && tensor_arguments(v, &arguments))
        return true;
    }
    return false;
  }

  // Below dicts, lists and tuples: the keys of every set of weights.
  void find_weights(const PickleValue& v, const std::string& path, int depth) {
    visited_ += 1 + std::ssize(v.items);
    if (visited_ > kMostVisited || found_.size() > 20) return;
    if (is_state_dict(v)) {
      found_.emplace_back(path, &v);
    } else if (depth < 4 &&
               (v.kind == Kind::dict || v.kind == Kind::list || v.kind == Kind::tuple)) {
      const size_t step = v.kind == Kind::dict ? 2 : 1;
      for (size_t i = 0; i + step <= v.items.size(); i += step) {
        const PickleValue& key = pickle_.at(v.items[i]);
        if (step == 2 && !is_text(key)) continue;
        const std::string name = step == 2 ? std::string(key.text.substr(0, 80)) : str(i);
        find_weights(pickle_.at(v.items[i + step - 1]), path + (path.empty() ? "" : ".") + name,
                     depth + 1);
      }
    }
  }

  // Under a key that nobody here knows, the only ones; several are for the user to choose from.
  const PickleValue* only_weights(const PickleValue& root) {
    find_weights(root, "", 0);
    if (found_.empty()) return &root;
    std::string paths;
    for (const auto& [path, v] : found_) paths += (paths.empty() ? "" : ", ") + path;
    if (found_.size() > 1)
      fail("one set of weights", "several: " + paths,
           "choose one: weights_key (--weights-key) = \"" + found_[0].first + "\"");
    collect_metadata(root);
    out_.notes.push_back("took " + paths + ", the only weights in it");
    return found_[0].second;
  }

  // Tensors, or one more wrapper; not the options that others keep under such a name.
  bool holds_weights(const PickleValue& dict) const {
    for (size_t i = 1; i < dict.items.size(); i += 2) {
      const PickleValue* arguments = nullptr;
      const PickleValue& v = pickle_.at(dict.items[i]);
      if (v.kind == Kind::call && tensor_arguments(v, &arguments)) return true;
    }
    return std::any_of(std::begin(kWrappers), std::end(kWrappers), [&](const char* key) {
      const PickleValue* v = pickle_.find(dict, key);
      return v && v->kind == Kind::dict;
    });
  }

  // A call that makes a network: its class is no tensor, and BUILD gave it parts.
  bool is_module(const PickleValue& v) const {
    return v.state && (pickle_.find(pickle_.at(*v.state), "_modules") ||
                       pickle_.find(pickle_.at(*v.state), "_parameters"));
  }

  [[noreturn]] void refuse_root(const PickleValue& v) {
    const std::string name = pickle_.called(v);
    if (v.kind == Kind::call && is_module(v))
      fail("a state dict", name.starts_with("__torch__") ? "TorchScript" : "an object of " + name,
           name.starts_with("__torch__")
               ? "save it with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
               : "this is a pickled module: save model.state_dict() instead");
    if (v.kind == Kind::list || v.kind == Kind::tuple)
      fail("a state dict", str("a list of ", v.items.size()),
           "choose one by its index: weights_key (--weights-key) 0");
    fail("a state dict", name.empty() ? "a file that holds something else" : "an object of " + name,
         "save model.state_dict()");
  }

  void collect_tensors(const PickleValue& dict) {
    std::set<std::string_view> names;
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue& key = pickle_.at(dict.items[i]);
      const PickleValue& value = pickle_.at(dict.items[i + 1]);
      if (!is_text(key)) continue;
      const std::string name(key.text.substr(0, 300));
      const PickleValue* arguments = nullptr;
      if (value.kind == Kind::call && tensor_arguments(value, &arguments)) {
        if (!names.insert(key.text).second) fail("distinct names", "\"" + name + "\" twice", "");
        out_.tensors.emplace_back(name, tensor(*arguments, name));
      } else if (value.kind == Kind::call) {
        out_.unread[name] = what_it_is(pickle_.called(value));
      } else {
        // Counters beside the tensors are kept; None, lists and dicts carry no weights.
        add_metadata(name, value);
      }
    }
  }

  static std::string what_it_is(const std::string& maker) {
    for (const auto& [name, words] :
         {std::pair{"_rebuild_qtensor", "a quantised tensor; save v.dequantize()"},
          std::pair{"_rebuild_sparse_tensor", "a sparse tensor; save v.to_dense()"},
          std::pair{"_rebuild_tensor_v3",
                    "of a type that is not read (8-bit floats?); save v.float()"}})
      if (maker.ends_with(name)) return words;
    return "an object of " + maker;
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

  // The arguments of _rebuild_tensor_v2, through the calls that PyTorch wraps around it for
  // parameters and for tensors with attributes. False: no tensor.
  bool tensor_arguments(const PickleValue& call, const PickleValue** arguments) const {
    const PickleValue *maker = &pickle_.at(call.items[0]), *given = &pickle_.at(call.items[1]);
    for (int depth = 0; depth < 4; ++depth) {
      const std::string name = pickle_.called(*maker);
      if (name == "torch._utils._rebuild_tensor_v2" || name == "torch._utils._rebuild_tensor") {
        *arguments = given;
        return true;
      }
      if (given->items.empty()) return false;
      if (name == "torch._utils._rebuild_parameter" ||
          name == "torch._utils._rebuild_parameter_with_state") {
        const PickleValue& inner = pickle_.at(given->items[0]);
        if (inner.kind != Kind::call) return false;
        maker = &pickle_.at(inner.items[0]);
        given = &pickle_.at(inner.items[1]);
      } else if (name == "torch._tensor._rebuild_from_type_v2" ||
                 name == "torch._tensor._rebuild_from_type") {  // (maker, type, arguments, ...)
        if (given->items.size() < 3 || pickle_.at(given->items[2]).kind != Kind::tuple)
          return false;
        maker = &pickle_.at(given->items[0]);
        given = &pickle_.at(given->items[2]);
      } else {
        return false;
      }
    }
    return false;
  }

  Tensor tensor(const PickleValue& given, const std::string& name) {
    const PickleValue* arguments = &given;
    const TorchStorageId id =
        torch_storage_id(pickle_, argument(*arguments, 0, Kind::persistent, name), file_);
    const int64_t offset = argument(*arguments, 1, Kind::integer, name).integer;
    const std::vector<int64_t> size = integers(argument(*arguments, 2, Kind::tuple, name), name);
    const std::vector<int64_t> stride = integers(argument(*arguments, 3, Kind::tuple, name), name);
    const auto* more = given.items.size() > 6 ? &pickle_.at(given.items[6]) : nullptr;
    for (const char* pending : {"neg", "conj"})
      if (const PickleValue* v = more ? pickle_.find(*more, pending) : nullptr; v && v->integer)
        fail(str("tensor \"", name, "\" as its storage has it"), "one that is negated when read",
             "save v.resolve_conj().resolve_neg()");
    if (offset < 0 || size.size() != stride.size())
      fail(str("tensor \"", name, "\" with one stride per size and an offset >= 0"), "otherwise");
    const TorchStorage s = storage_(id);
    const int64_t count = id.view_count >= 0 ? id.view_count : s.count;
    // Inside its storage. A stride may be 0 (expanded): what is allocated is bounded below.
    int64_t numel = 1, last = offset, span = 0;
    bool good = true;
    for (size_t d = 0; d < size.size(); ++d)
      good = good && checked_multiply(numel, size[d], &numel);
    if (good && numel > 0)
      for (size_t d = 0; d < size.size(); ++d)
        good = good && checked_multiply(size[d] - 1, stride[d], &span) &&
               !__builtin_add_overflow(last, span, &last);
    if (!good || (numel > 0 && last >= count))
      fail(str("tensor \"", name, "\" inside its storage of ", count, " elements"),
           str("offset ", offset, ", shape ", size.empty() ? "[]" : Shape(size).to_string()));
    const uint64_t bytes = numel > INT64_MAX / 8 ? UINT64_MAX : static_cast<uint64_t>(numel) * 8;
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
  const std::string& key_;
  uint64_t allowed_;
  StateFile out_;
  std::vector<std::pair<std::string, const PickleValue*>>
      found_;  // sets of weights, with their keys
  int64_t visited_ = 0;
};

}  // namespace

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
  // Old files name the class and the source code of each module so.
  if (id.kind == Kind::tuple && id.items.size() == 4 && is_text(pickle.at(id.items[0])) &&
      pickle.at(id.items[0]).text == "module" && pickle.at(id.items[1]).kind == Kind::global) {
    const PickleValue& type = pickle.at(id.items[1]);
    throw_data_error(file_name, -1, "a state dict", str("an object of ", type.text, ".", type.name),
                     "this is a pickled module: save model.state_dict() instead");
  }
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
  if (out.item == 0)
    throw_data_error(file_name, -1, "weights that are real numbers",
                     str("a ", std::string(type.name.substr(0, 60))),
                     "save them as 32-bit floats: v.float(), or v.dequantize() of quantised ones");
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
                      const std::function<TorchStorage(const TorchStorageId&)>& storage,
                      const std::string& key) {
  return StateWalker(pickle, file_name, file_bytes, storage, key).run();
}

}  // namespace mtcki::data

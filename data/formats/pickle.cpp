#include "data/formats/pickle.h"

#include <bit>
#include <cstdio>
#include <unordered_map>
#include <utility>

namespace mtcki::data {

using Kind = PickleValue::Kind;

class PickleMachine {
 public:
  PickleMachine(ByteReader* reader, std::span<const char* const> globals, Pickle* out)
      : r_(*reader), globals_(globals), values_(out->values_) {}

  PickleRef run() {
    while (true) {
      start_ = r_.offset();
      const uint8_t op = r_.u8("a pickle opcode");
      if (op == '.') return pop();
      step(op);
    }
  }

 private:
  void step(uint8_t op) {
    switch (op) {
      case 0x80: {  // PROTO
        const uint8_t v = r_.u8("the pickle protocol");
        if (v < 2 || v > 3) fail("pickle protocol 2 or 3", str("protocol ", int{v}));
        return;
      }
      case '(':
        return push_mark();
      case 'N':
        return push({.kind = Kind::none});
      case 0x88:
        return push({.kind = Kind::boolean, .integer = 1});
      case 0x89:
        return push({.kind = Kind::boolean, .integer = 0});
      case 'K':
        return push_integer(r_.u8("an integer"));
      case 'M':
        return push_integer(r_.u16("an integer"));
      case 'J':
        return push_integer(static_cast<int32_t>(r_.u32("an integer")));
      case 0x8a:
        return push_long(r_.take(r_.u8("a length"), "a long integer"));
      case 'G': {  // big-endian double
        uint64_t bits = 0;
        for (const uint8_t b : r_.take(8, "a float")) bits = bits << 8 | b;
        return push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
      }
      case 'X':
        return push_text(Kind::text, r_.u32("a length"));
      case 'U':
      case 'C':
        return push_text(Kind::bytes, r_.u8("a length"));
      case 'T':
      case 'B':
        return push_text(Kind::bytes, r_.u32("a length"));
      case '}':
        return push({.kind = Kind::dict});
      case ']':
        return push({.kind = Kind::list});
      case ')':
        return push({.kind = Kind::tuple});
      case 't':
        return push({.kind = Kind::tuple, .items = pop_to_mark()});
      case 0x85:
        return push_tuple(1);
      case 0x86:
        return push_tuple(2);
      case 0x87:
        return push_tuple(3);
      case 'd': {
        std::vector<PickleRef> items = pop_to_mark();
        if (items.size() % 2 != 0) fail("pairs for a dict", "an odd number of values");
        return push({.kind = Kind::dict, .items = std::move(items)});
      }
      case 'a': {
        const PickleRef item = pop();
        return append({item});
      }
      case 'e':
        return append(pop_to_mark());
      case 's': {
        const PickleRef value = pop(), key = pop();
        return set_items({key, value});
      }
      case 'u':
        return set_items(pop_to_mark());
      case 'q':
        return memo_put(r_.u8("a memo index"));
      case 'r':
        return memo_put(r_.u32("a memo index"));
      case 'h':
        return memo_get(r_.u8("a memo index"));
      case 'j':
        return memo_get(r_.u32("a memo index"));
      case 'c':
        return push_global();
      case 'R':
      case 0x81:
        return call();
      case 'b':
        return build();
      case 'Q': {
        const PickleRef id = pop();
        return push({.kind = Kind::persistent, .items = {id}});
      }
      default: {
        char text[8];
        std::snprintf(text, sizeof text, "0x%02x", op);
        fail("a pickle opcode that tensors and batches need", text);
      }
    }
  }

  [[noreturn]] void fail(const std::string& expected, const std::string& found,
                         const std::string& next = "the file is damaged or of another kind") {
    throw_data_error(r_.name(), start_, expected, found, next);
  }

  static constexpr PickleRef kMark = UINT32_MAX;
  static constexpr size_t kMostValues = 300'000;  // CIFAR-100 has 150,000, ResNets a few thousand

  void push(PickleValue value) {
    // A value takes a hundred times the byte that makes it.
    if (values_.size() == kMostValues)
      fail(str("at most ", kMostValues, " values"), "more", "save only the state_dict");
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<PickleRef>(values_.size() - 1));
  }
  void push_mark() { stack_.push_back(kMark); }
  void push_integer(int64_t v) { push({.kind = Kind::integer, .integer = v}); }
  void push_text(Kind kind, uint64_t n) {
    push({.kind = kind, .text = as_text(r_.take(n, "a string"))});
  }
  // Little-endian two's complement; more than 64 bits stay bytes (PyTorch's magic number).
  void push_long(Bytes b) {
    if (b.size() > 8) return push({.kind = Kind::bytes, .text = as_text(b)});
    uint64_t v = !b.empty() && (b.back() & 0x80) ? ~uint64_t{0} : 0;
    for (size_t i = b.size(); i-- > 0;) v = v << 8 | b[i];
    push_integer(static_cast<int64_t>(v));
  }

  PickleRef pop() {
    if (stack_.empty() || stack_.back() == kMark) fail("a value on the pickle stack", "none");
    const PickleRef r = stack_.back();
    stack_.pop_back();
    return r;
  }
  std::vector<PickleRef> pop_to_mark() {
    size_t i = stack_.size();
    while (i > 0 && stack_[i - 1] != kMark) --i;
    if (i == 0) fail("a mark on the pickle stack", "none");
    std::vector<PickleRef> out(stack_.begin() + static_cast<ptrdiff_t>(i), stack_.end());
    stack_.resize(i - 1);
    return out;
  }
  PickleValue& top(Kind kind, const char* what) {
    if (stack_.empty() || stack_.back() == kMark || values_[stack_.back()].kind != kind)
      fail(str(what, " on the pickle stack"), "another value");
    return values_[stack_.back()];
  }
  void push_tuple(size_t n) {
    std::vector<PickleRef> items(n);
    for (size_t i = n; i-- > 0;) items[i] = pop();
    push({.kind = Kind::tuple, .items = std::move(items)});
  }
  void append(const std::vector<PickleRef>& items) {
    PickleValue& list = top(Kind::list, "a list");
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<PickleRef>& items) {
    if (items.size() % 2 != 0) fail("pairs for a dict", "an odd number of values");
    PickleValue& dict = top(Kind::dict, "a dict");
    dict.items.insert(dict.items.end(), items.begin(), items.end());
  }
  void memo_put(uint32_t index) {
    const PickleRef r = pop();
    stack_.push_back(r);
    memo_[index] = r;
    if (memo_.size() > kMostValues) fail("a memo of distinct values", "a larger one");
  }
  void memo_get(uint32_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) fail(str("memo entry ", index), "none");
    stack_.push_back(it->second);
  }

  void push_global() {
    const std::string_view module = r_.line("a module name"), name = r_.line("a global name");
    const std::string full =
        std::string(module.substr(0, 200)) + " " + std::string(name.substr(0, 200));
    bool good = false;
    for (const char* g : globals_) good = good || full == g;
    if (!good) refuse(full);
    push({.kind = Kind::global, .text = module, .name = name});
  }
  [[noreturn]] void refuse(std::string full) {
    std::string next =
        "only tensors, numbers, texts, lists and dicts are read; nothing is executed";
    if (full.starts_with("torch.nn.") || full.starts_with("__main__") ||
        full.starts_with("models") || full.starts_with("model ") ||
        full.starts_with("torchvision."))
      next = "this is a pickled module: save model.state_dict() instead";
    else if (full.starts_with("__torch__"))
      next = "this is TorchScript: save model.state_dict() instead";
    else if (full.starts_with("numpy"))
      next = "a number of NumPy beside the weights: save float(x) instead, or only the state_dict";
    const size_t space = full.find(' ');
    full[space] = '.';
    for (char& c : full)
      if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126) c = '?';
    fail("a pickle of plain data", "the global " + full, next);
  }

  // An OrderedDict is a dict; every other call is recorded.
  void call() {
    const PickleRef arguments = pop(), callable = pop();
    const PickleValue& f = values_[callable];
    if (f.kind != Kind::global || values_[arguments].kind != Kind::tuple)
      fail("a call of a global with a tuple", "something else");
    if (f.text != "collections" || f.name != "OrderedDict")
      return push({.kind = Kind::call, .items = {callable, arguments}});
    PickleValue dict{.kind = Kind::dict};
    const std::vector<PickleRef>& given = values_[arguments].items;
    if (given.size() > 1) fail("an OrderedDict of one list", str(given.size(), " arguments"));
    if (given.size() == 1) {  // OrderedDict([(key, value), ...])
      for (const PickleRef pair : values_[given[0]].items) {
        const PickleValue& p = values_[pair];
        if (p.items.size() != 2 || (p.kind != Kind::tuple && p.kind != Kind::list))
          fail("pairs for an OrderedDict", "something else");
        dict.items.insert(dict.items.end(), p.items.begin(), p.items.end());
      }
      // One list given to many calls would multiply: what is copied stays below the bytes read.
      copied_ += dict.items.size();
      if (copied_ > r_.content().size()) fail("dicts no larger than the file", "a larger one");
    }
    push(std::move(dict));
  }
  void build() {
    const PickleRef state = pop();
    if (stack_.empty() || stack_.back() == kMark) fail("an object on the pickle stack", "none");
    PickleValue& object = values_[stack_.back()];
    if (object.kind == Kind::dict) return;  // an OrderedDict's _metadata
    if (object.kind != Kind::call) fail("an object to give a state to", "another value");
    object.state = state;
  }

  ByteReader& r_;
  std::span<const char* const> globals_;
  std::deque<PickleValue>& values_;
  std::vector<PickleRef> stack_;
  std::unordered_map<uint32_t, PickleRef> memo_;
  size_t copied_ = 0;
  int64_t start_ = 0;
};

Pickle::Pickle(ByteReader* reader, std::span<const char* const> globals) {
  root_ = PickleMachine(reader, globals, this).run();
}

const PickleValue* Pickle::find(const PickleValue& dict, std::string_view key) const {
  if (dict.kind != Kind::dict) return nullptr;
  for (size_t i = dict.items.size(); i >= 2; i -= 2) {
    const PickleValue& k = at(dict.items[i - 2]);
    if ((k.kind == Kind::text || k.kind == Kind::bytes) && k.text == key)
      return &at(dict.items[i - 1]);
  }
  return nullptr;
}

}  // namespace mtcki::data

#include "data/formats/pickle.h"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <utility>

#include "data/formats/pickle_text.h"

namespace mtcki::data {

using Kind = PickleValue::Kind;

class PickleMachine {
 public:
  PickleMachine(ByteReader* reader, std::deque<PickleValue>* values, std::deque<std::string>* texts)
      : r_(*reader), values_(*values), texts_(*texts) {}

  PickleRef run() {
    while (true) {
      start_ = r_.offset();
      const uint8_t op = r_.u8("a pickle opcode");
      if (op == '.') return pop();
      if (!number(op) && !text(op) && !container(op) && !object(op)) {
        char name[8];
        std::snprintf(name, sizeof name, "0x%02x", op);
        fail("a pickle opcode", name);
      }
    }
  }

 private:
  bool number(uint8_t op) {
    switch (op) {
      case 'N':
        push({.kind = Kind::none});
        return true;
      case 0x88:
      case 0x89:
        push({.kind = Kind::boolean, .integer = op == 0x88});
        return true;
      case 'K':
        push_integer(r_.u8("an integer"));
        return true;
      case 'M':
        push_integer(r_.u16("an integer"));
        return true;
      case 'J':
        push_integer(static_cast<int32_t>(r_.u32("an integer")));
        return true;
      case 'I':
      case 'L':
        push_decimal(op == 'I', r_.line("an integer"));
        return true;
      case 0x8a:
        push_long(r_.take(r_.u8("a length"), "a long integer"));
        return true;
      case 0x8b:
        push_long(r_.take(r_.u32("a length"), "a long integer"));
        return true;
      case 'F': {
        const std::string digits(r_.line("a number").substr(0, 64));
        push({.kind = Kind::real, .real = std::strtod(digits.c_str(), nullptr)});
        return true;
      }
      case 'G': {  // big-endian double
        uint64_t bits = 0;
        for (const uint8_t b : r_.take(8, "a float")) bits = bits << 8 | b;
        push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
        return true;
      }
      default:
        return false;
    }
  }

  bool text(uint8_t op) {
    switch (op) {
      case 0x8c:
        return push_text(Kind::text, r_.u8("a length"));
      case 'X':
        return push_text(Kind::text, r_.u32("a length"));
      case 0x8d:
        return push_text(Kind::text, r_.u64("a length"));
      case 'V':
        return push_own(Kind::text, unescaped_unicode(r_.line("a text")));
      case 'U':
      case 'C':
        return push_text(Kind::bytes, r_.u8("a length"));
      case 'T':
      case 'B':
        return push_text(Kind::bytes, r_.u32("a length"));
      case 0x8e:
      case 0x96:
        return push_text(Kind::bytes, r_.u64("a length"));
      case 'S':
        return push_own(Kind::bytes, unescaped_bytes(r_.line("a string")));
      default:
        return false;
    }
  }

  bool container(uint8_t op) {
    switch (op) {
      case '(':
        stack_.push_back(kMark);
        return true;
      case '}':
        push({.kind = Kind::dict});
        return true;
      case ']':
      case 0x8f:  // a set
        push({.kind = Kind::list});
        return true;
      case ')':
        push({.kind = Kind::tuple});
        return true;
      case 'l':
      case 0x91:  // a frozenset
        push({.kind = Kind::list, .items = pop_to_mark()});
        return true;
      case 't':
        push({.kind = Kind::tuple, .items = pop_to_mark()});
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(op - 0x84u);
        return true;
      case 'd':
        push({.kind = Kind::dict, .items = pairs(pop_to_mark())});
        return true;
      case 'a': {
        const PickleRef item = pop();
        append({item});
        return true;
      }
      case 'e':
      case 0x90:
        append(pop_to_mark());
        return true;
      case 's': {
        const PickleRef value = pop(), key = pop();
        set_items({key, value});
        return true;
      }
      case 'u':
        set_items(pairs(pop_to_mark()));
        return true;
      default:
        return false;
    }
  }

  bool object(uint8_t op) {
    switch (op) {
      case 0x80: {  // PROTO
        const uint8_t v = r_.u8("the pickle protocol");
        if (v > 5) fail("a pickle protocol up to 5", str("protocol ", int{v}));
        return true;
      }
      case 0x95:  // FRAME
        r_.take(8, "the length of a frame");
        return true;
      case 0x98:  // READONLY_BUFFER
        return true;
      case '0':
        pop();
        return true;
      case '1':
        pop_to_mark();
        return true;
      case '2':
        stack_.push_back(top());
        return true;
      case 'q':
        return memo_put(r_.u8("a memo index"));
      case 'r':
        return memo_put(r_.u32("a memo index"));
      case 'p':
        return memo_put(memo_key());
      case 0x94:
        return memo_put(memo_.size());
      case 'h':
        return memo_get(r_.u8("a memo index"));
      case 'j':
        return memo_get(r_.u32("a memo index"));
      case 'g':
        return memo_get(memo_key());
      case 'c': {
        const std::string_view module = r_.line("a module name"), name = r_.line("a global name");
        push({.kind = Kind::global, .text = module, .name = name});
        return true;
      }
      case 0x93: {  // STACK_GLOBAL
        const PickleRef name = pop(), module = pop();
        if (!is_text(name) || !is_text(module)) fail("the names of a global", "other values");
        push({.kind = Kind::global, .text = values_[module].text, .name = values_[name].text});
        return true;
      }
      case 'i': {  // INST: class in the text, arguments down to the mark
        const std::string_view module = r_.line("a module name"), name = r_.line("a global name");
        push({.kind = Kind::tuple, .items = pop_to_mark()});
        const PickleRef arguments = pop();
        push({.kind = Kind::global, .text = module, .name = name});
        call(pop(), arguments);
        return true;
      }
      case 'o': {  // OBJ: mark, class, arguments
        std::vector<PickleRef> items = pop_to_mark();
        if (items.empty()) fail("a class to make an object of", "none");
        const PickleRef callable = items[0];
        items.erase(items.begin());
        push({.kind = Kind::tuple, .items = std::move(items)});
        call(callable, pop());
        return true;
      }
      case 'R':
      case 0x81:    // NEWOBJ
      case 0x92: {  // NEWOBJ_EX, with a dict of named arguments
        if (op == 0x92) pop();
        const PickleRef arguments = pop();
        call(pop(), arguments);
        return true;
      }
      case 'b':
        build();
        return true;
      case 'P':
        push({.kind = Kind::text, .text = r_.line("a persistent id")});
        push({.kind = Kind::persistent, .items = {pop()}});
        return true;
      case 'Q':
        push({.kind = Kind::persistent, .items = {pop()}});
        return true;
      default:
        return false;
    }
  }

  [[noreturn]] void fail(const std::string& expected, const std::string& found,
                         const std::string& next = "the file is damaged or of another kind") {
    throw_data_error(r_.name(), start_, expected, found, next);
  }

  static constexpr PickleRef kMark = UINT32_MAX;
  static constexpr size_t kMostValues = 300'000;  // CIFAR-100 has 150,000, ResNets a few thousand

  bool is_text(PickleRef r) const {
    return values_[r].kind == Kind::text || values_[r].kind == Kind::bytes;
  }
  void push(PickleValue value) {
    // A value takes a hundred times the byte that makes it.
    if (values_.size() == kMostValues)
      fail(str("at most ", kMostValues, " values"), "more", "save only the state_dict");
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<PickleRef>(values_.size() - 1));
  }
  void push_integer(int64_t v) { push({.kind = Kind::integer, .integer = v}); }
  bool push_text(Kind kind, uint64_t n) {
    push({.kind = kind, .text = as_text(r_.take(n, "a string"))});
    return true;
  }
  bool push_own(Kind kind, std::string value) {
    grow(value.size());
    texts_.push_back(std::move(value));
    push({.kind = kind, .text = texts_.back()});
    return true;
  }
  // Protocol 0: "I01" is True; a long ends in L.
  void push_decimal(bool may_be_boolean, std::string_view digits) {
    if (may_be_boolean && (digits == "00" || digits == "01"))
      return push({.kind = Kind::boolean, .integer = digits == "01"});
    const std::string text(digits.substr(0, 64));
    char* end = nullptr;
    const int64_t v = std::strtoll(text.c_str(), &end, 10);
    if (end == text.c_str()) fail("an integer", "another text");
    push_integer(v);
  }
  // Little-endian two's complement; more than 64 bits stay bytes (PyTorch's magic number).
  void push_long(Bytes b) {
    if (b.size() > 8) return push({.kind = Kind::bytes, .text = as_text(b)});
    uint64_t v = !b.empty() && (b.back() & 0x80) ? ~uint64_t{0} : 0;
    for (size_t i = b.size(); i-- > 0;) v = v << 8 | b[i];
    push_integer(static_cast<int64_t>(v));
  }

  PickleRef top() {
    if (stack_.empty() || stack_.back() == kMark) fail("a value on the pickle stack", "none");
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef r = top();
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
  std::vector<PickleRef> pairs(std::vector<PickleRef> items) {
    if (items.size() % 2 != 0) fail("pairs for a dict", "an odd number of values");
    return items;
  }
  void push_tuple(size_t n) {
    std::vector<PickleRef> items(n);
    for (size_t i = n; i-- > 0;) items[i] = pop();
    push({.kind = Kind::tuple, .items = std::move(items)});
  }
  // What is added to an object of an unknown class stays out: nobody here could say what it means.
  void append(const std::vector<PickleRef>& items) {
    PickleValue& list = values_[top()];
    if (list.kind == Kind::list)
      list.items.insert(list.items.end(), items.begin(), items.end());
    else if (list.kind != Kind::call)
      fail("a list on the pickle stack", "another value");
  }
  void set_items(const std::vector<PickleRef>& items) {
    PickleValue& dict = values_[top()];
    if (dict.kind == Kind::dict)
      dict.items.insert(dict.items.end(), items.begin(), items.end());
    else if (dict.kind != Kind::call)
      fail("a dict on the pickle stack", "another value");
  }
  uint64_t memo_key() {
    const std::string digits(r_.line("a memo index").substr(0, 20));
    return std::strtoull(digits.c_str(), nullptr, 10);
  }
  bool memo_put(uint64_t index) {
    memo_[index] = top();
    if (memo_.size() > kMostValues) fail("a memo of distinct values", "a larger one");
    return true;
  }
  bool memo_get(uint64_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) fail(str("memo entry ", index), "none");
    stack_.push_back(it->second);
    return true;
  }

  // A thing given to many calls would multiply. Bytes that Python 3 wrote for Python 2 are copied
  // twice, as text and as bytes.
  void grow(size_t amount) {
    copied_ += amount;
    if (copied_ / 4 > r_.content().size())
      fail("values of at most four times the file's size", "larger ones");
  }

  bool calls(PickleRef callable, std::string_view module, std::string_view name) const {
    const PickleValue& f = values_[callable];
    return f.kind == Kind::global && f.text == module && f.name == name;
  }

  // A dict of the standard library is a dict, bytes that Python 3 wrote for Python 2 are bytes;
  // every other call is recorded.
  void call(PickleRef callable, PickleRef arguments) {
    if (values_[arguments].kind != Kind::tuple) fail("the arguments of a call", "something else");
    const std::vector<PickleRef>& given = values_[arguments].items;
    if (calls(callable, "_codecs", "encode") && given.size() == 2 && is_text(given[0])) {
      push_own(Kind::bytes, latin1(values_[given[0]].text));
    } else if (calls(callable, "collections", "OrderedDict") && given.size() <= 1) {
      PickleValue dict{.kind = Kind::dict};
      if (given.size() == 1) dict.items = listed_pairs(values_[given[0]]);
      push(std::move(dict));
    } else if (calls(callable, "collections", "defaultdict")) {
      push({.kind = Kind::dict});
    } else {
      push({.kind = Kind::call, .items = {callable, arguments}});
    }
  }
  // OrderedDict([(key, value), ...])
  std::vector<PickleRef> listed_pairs(const PickleValue& list) {
    std::vector<PickleRef> out;
    for (const PickleRef pair : list.items) {
      const PickleValue& p = values_[pair];
      if (p.items.size() != 2 || (p.kind != Kind::tuple && p.kind != Kind::list))
        fail("pairs for an OrderedDict", "something else");
      grow(2);
      out.insert(out.end(), p.items.begin(), p.items.end());
    }
    return out;
  }
  // A dict's are its attributes, as an OrderedDict's _metadata.
  void build() {
    const PickleRef state = pop();
    if (PickleValue& object = values_[top()]; object.kind == Kind::call) object.state = state;
  }

  ByteReader& r_;
  std::deque<PickleValue>& values_;
  std::deque<std::string>& texts_;
  std::vector<PickleRef> stack_;
  std::unordered_map<uint64_t, PickleRef> memo_;
  size_t copied_ = 0;
  int64_t start_ = 0;
};

Pickle::Pickle(ByteReader* reader) { root_ = PickleMachine(reader, &values_, &texts_).run(); }

const PickleValue* Pickle::find(const PickleValue& dict, std::string_view key) const {
  if (dict.kind != Kind::dict) return nullptr;
  for (size_t i = dict.items.size(); i >= 2; i -= 2) {
    const PickleValue& k = at(dict.items[i - 2]);
    if ((k.kind == Kind::text || k.kind == Kind::bytes) && k.text == key)
      return &at(dict.items[i - 1]);
  }
  return nullptr;
}

std::string Pickle::called(const PickleValue& v) const {
  const PickleValue& f = v.kind == Kind::call ? at(v.items[0]) : v;
  if (f.kind != Kind::global) return "";
  std::string out = std::string(f.text.substr(0, 200)) + "." + std::string(f.name.substr(0, 200));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126) c = '?';
  return out;
}

}  // namespace mtcki::data

// Python's pickle, protocols 0 to 5, read without executing anything: a global is only a name,
// calling one only records the call, whoever it is. What a value means is up to who asks for it, so
// that objects nobody here knows are no matter beside those that are wanted.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

// Values refer to each other by index, so that cycles and deep nesting need no recursion to free.
using PickleRef = uint32_t;

struct PickleValue {
  enum class Kind {
    none,  // also what has no meaning here
    boolean,
    integer,
    real,
    text,
    bytes,
    tuple,
    list,
    dict,
    global,
    call,
    persistent
  };
  Kind kind = Kind::none;
  int64_t integer = 0;                  // boolean, integer
  double real = 0;                      // real
  std::string_view text = {};           // text, bytes; global: its module
  std::string_view name = {};           // global
  std::vector<PickleRef> items = {};    // tuple, list, set; dict: key, value, ...; call: callable,
                                        // arguments; persistent: its id
  std::optional<PickleRef> state = {};  // what BUILD gave to a call
};

class Pickle {
 public:
  // Reads one pickle from the reader, which is left behind its STOP. DataError for damage, and for
  // what needs more than the file (buffers out of band). The file's bytes must outlive the object.
  explicit Pickle(ByteReader* reader);

  const PickleValue& root() const { return at(root_); }
  const PickleValue& at(PickleRef r) const { return values_[r]; }
  // The value under a text (or bytes) key of a dict, the last one if repeated; nullptr: none.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const;
  // Every value that was read, in order.
  template <class F>
  void for_each(const F& f) const {
    for (const PickleValue& v : values_) f(v);
  }
  // "module.name" of a global, or of what is called; "" otherwise.
  std::string called(const PickleValue& v) const;
  bool is_global(const PickleValue& v, std::string_view module, std::string_view name) const {
    return v.kind == PickleValue::Kind::global && v.text == module && v.name == name;
  }

 private:
  friend class PickleMachine;
  std::deque<PickleValue> values_;
  std::deque<std::string> texts_;  // those that are not in the file as they are
  PickleRef root_ = 0;
};

}  // namespace mtcki::data

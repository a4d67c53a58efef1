// The part of Python's pickle that PyTorch checkpoints and CIFAR batches use, read without
// executing anything: a global is only a name, calling one only records the call. Protocols 2
// and 3.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

// Values refer to each other by index, so that cycles and deep nesting need no recursion to free.
using PickleRef = uint32_t;

struct PickleValue {
  enum class Kind {
    none,
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
  std::string_view text = {};           // text, bytes (into the file); global: its module
  std::string_view name = {};           // global
  std::vector<PickleRef> items = {};    // tuple, list; dict: key, value, ...; call: callable,
                                        // arguments; persistent: its id
  std::optional<PickleRef> state = {};  // what BUILD gave to a call
};

class Pickle {
 public:
  // Reads one pickle from the reader, which is left behind its STOP. `globals`: the accepted ones
  // as "module name". DataError for any other global, any other opcode, or damage. The file's bytes
  // must outlive the object.
  Pickle(ByteReader* reader, std::span<const char* const> globals);

  const PickleValue& root() const { return at(root_); }
  const PickleValue& at(PickleRef r) const { return values_[r]; }
  // The value under a text (or bytes) key of a dict, the last one if repeated; nullptr: none.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const;
  // Every value that was read, in order.
  template <class F>
  void for_each(const F& f) const {
    for (const PickleValue& v : values_) f(v);
  }
  bool is_global(const PickleValue& v, std::string_view module, std::string_view name) const {
    return v.kind == PickleValue::Kind::global && v.text == module && v.name == name;
  }

 private:
  friend class PickleMachine;
  std::deque<PickleValue> values_;
  PickleRef root_ = 0;
};

}  // namespace mtcki::data

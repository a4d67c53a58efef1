#include "data/formats/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "tensor/shape.h"

namespace mtcki::data {

namespace {

using nlohmann::json;

constexpr size_t kMostTensors = 100'000, kLongestName = 1000;

// {"__metadata__": {key: string...}, name: {"dtype": string, "shape": [n...], "data_offsets": [b,
// e]}...}
class HeaderSax : public nlohmann::json_sax<json> {
 public:
  SafetensorsHeader header;
  std::string problem;
  size_t position = 0;

  bool null() override { return reject("null"); }
  bool boolean(bool) override { return reject("true or false"); }
  bool number_float(number_float_t, const string_t& text) override {
    return reject("the number " + text.substr(0, 40));
  }
  bool number_integer(number_integer_t v) override { return reject(str("the number ", v)); }
  bool binary(binary_t&) override { return reject("binary data"); }

  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return reject(str("the number ", v));
    if (place_ == Place::kShape) {
      if (entry_.shape.size() == static_cast<size_t>(Shape::kMaxRank))
        return fail(str("tensor \"", entry_.name, "\" has more than 8 dimensions"));
      entry_.shape.push_back(static_cast<int64_t>(v));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_ == 2) return fail(str("tensor \"", entry_.name, "\": three data_offsets"));
      (offsets_++ == 0 ? entry_.begin : entry_.end) = v;
      return true;
    }
    return reject(str("the number ", v));
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      header.metadata[key_] = std::move(text);
      return true;
    }
    if (place_ == Place::kEntry && key_ == "dtype") {
      entry_.dtype = std::move(text);
      return true;
    }
    return reject("a string");
  }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      if (key_ == "__metadata__") {
        place_ = Place::kMetadata;
      } else {
        place_ = Place::kEntry;
        entry_ = {};
        entry_.name = key_;
        offsets_ = 0;
      }
      fields_.clear();
    } else {
      return reject("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) {
      if (name.size() > kLongestName)
        return fail(str("a name of more than ", kLongestName, " bytes"));
      if (!names_.insert(name).second) return fail("duplicate key \"" + shown(name) + "\"");
    } else {
      if (!fields_.insert(name).second) return fail("duplicate key \"" + shown(name) + "\"");
      if (place_ == Place::kEntry && name != "dtype" && name != "shape" && name != "data_offsets")
        return fail("unknown field \"" + shown(name) + "\" of tensor \"" + shown(entry_.name) +
                    "\"");
    }
    key_ = std::move(name);
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kEntry) {
      if (fields_.size() != 3 || offsets_ != 2)
        return fail("tensor \"" + shown(entry_.name) +
                    "\" needs dtype, shape and two data_offsets");
      if (header.entries.size() == kMostTensors)
        return fail(str("more than ", kMostTensors, " tensors"));
      header.entries.push_back(std::move(entry_));
    }
    place_ = place_ == Place::kTop ? Place::kDone : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kEntry && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kEntry && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return reject("a list");
    }
    return true;
  }
  bool end_array() override {
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception& e) override {
    position = at;
    const std::string text =
        e.what();  // "[json.exception.parse_error.101] parse error at ...: why"
    const size_t cut = text.find("] ");
    return fail(cut == std::string::npos ? text : text.substr(cut + 2));
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kEntry, kShape, kOffsets, kDone };

  static std::string shown(const std::string& s) { return s.size() <= 120 ? s : s.substr(0, 120); }
  bool fail(std::string text) {
    problem = std::move(text);
    return false;
  }
  bool reject(const std::string& what) {
    const std::string where =
        place_ == Place::kOutside || place_ == Place::kTop ? str("for \"", shown(key_), "\"")
        : place_ == Place::kMetadata
            ? str("for __metadata__ \"", shown(key_), "\"")
            : str("for ", shown(key_), " of tensor \"", shown(entry_.name), "\"");
    return fail(str("unexpected ", what, " ", where));
  }

  Place place_ = Place::kOutside;
  std::string key_;
  SafetensorsEntry entry_;
  int offsets_ = 0;
  std::unordered_set<std::string> names_, fields_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(Bytes text, const std::string& file_name) {
  HeaderSax sax;
  const bool good = json::sax_parse(text.begin(), text.end(), &sax, json::input_format_t::json,
                                    /*strict=*/true);
  if (!good)
    throw_data_error(file_name, 8 + static_cast<int64_t>(sax.position), "a safetensors header",
                     sax.problem.substr(0, 400), "the file is damaged or not a safetensors file");
  return std::move(sax.header);
}

}  // namespace mtcki::data

#include <cstring>

#include "data/formats/pickle.h"
#include "data/sets/cifar.h"

namespace mtcki::data {

namespace {

using Kind = PickleValue::Kind;

constexpr const char* kGlobals[] = {"numpy.core.multiarray _reconstruct",
                                    "numpy._core.multiarray _reconstruct", "numpy ndarray",
                                    "numpy dtype", "collections OrderedDict"};

}  // namespace

LabelledImages parse_cifar_pickle(Bytes content, const std::string& name, bool cifar100) {
  if (const std::string kind = recognise(content); !kind.empty() && kind != "a Python pickle")
    throw_data_error(name, 0, "a CIFAR batch of the Python version", kind);
  const auto fail = [&name](const std::string& expected, const std::string& found) {
    throw_data_error(name, -1, expected, found, "the file is damaged or of another kind");
  };
  ByteReader reader(content, name);
  const Pickle pickle(&reader, kGlobals);
  const PickleValue* array = pickle.find(pickle.root(), "data");
  const PickleValue* labels = pickle.find(pickle.root(), cifar100 ? "fine_labels" : "labels");
  if (!array || !labels || array->kind != Kind::call || labels->kind != Kind::list)
    fail(str("a dict with data and ", cifar100 ? "fine_labels" : "labels"), "none");
  // ndarray state: (version, shape, dtype, fortran order, bytes). NumPy 2 renamed its module.
  const PickleValue& maker = pickle.at(array->items[0]);
  if (!array->state || (!pickle.is_global(maker, "numpy.core.multiarray", "_reconstruct") &&
                        !pickle.is_global(maker, "numpy._core.multiarray", "_reconstruct")))
    fail("data as an array", "something else");
  const PickleValue& state = pickle.at(*array->state);
  if (state.kind != Kind::tuple || state.items.size() != 5)
    fail("the state of an array", "another value");
  const PickleValue &shape = pickle.at(state.items[1]), &type = pickle.at(state.items[2]),
                    &fortran = pickle.at(state.items[3]), &raw = pickle.at(state.items[4]);
  const auto n = static_cast<int64_t>(labels->items.size());
  constexpr int64_t kPixels = 3 * 32 * 32;
  if (shape.kind != Kind::tuple || shape.items.size() != 2 ||
      pickle.at(shape.items[0]).kind != Kind::integer || pickle.at(shape.items[0]).integer != n ||
      pickle.at(shape.items[1]).kind != Kind::integer ||
      pickle.at(shape.items[1]).integer != kPixels)
    fail(str("data of shape (", n, ", 3072)"), "another shape");
  // dtype('u1', ...)
  bool bytes_type = false;
  if (type.kind == Kind::call) {
    const PickleValue& arguments = pickle.at(type.items[1]);
    bytes_type = !arguments.items.empty() && pickle.at(arguments.items[0]).text == "u1";
  }
  if (!bytes_type || (fortran.kind == Kind::boolean && fortran.integer) ||
      raw.kind != Kind::bytes || static_cast<int64_t>(raw.text.size()) != n * kPixels)
    fail(str(n * kPixels, " bytes of u8 data in C order"),
         raw.kind == Kind::bytes ? str(raw.text.size(), " bytes") : "another value");
  LabelledImages out{Tensor::empty({n, 3, 32, 32}, DType::u8), Tensor::empty({n}, DType::i64)};
  if (n > 0) std::memcpy(out.images.raw(), raw.text.data(), raw.text.size());
  for (int64_t i = 0; i < n; ++i) {
    const PickleValue& label = pickle.at(labels->items[static_cast<size_t>(i)]);
    const int64_t most = cifar100 ? 99 : 9;
    if (label.kind != Kind::integer || label.integer < 0 || label.integer > most)
      fail(str("label ", i, " in 0-", most),
           label.kind == Kind::integer ? str(label.integer) : "no number");
    out.labels.data<int64_t>()[i] = label.integer;
  }
  return out;
}

}  // namespace mtcki::data

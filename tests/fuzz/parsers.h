// Every parser of files behind one signature: the fuzz targets and the corpus replay of the tests
// use it.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "data/formats/image_file.h"
#include "data/formats/onnx_file.h"
#include "data/formats/safetensors.h"
#include "data/formats/torch_tensors.h"
#include "data/formats/zip.h"
#include "data/sets/cifar.h"
#include "data/sets/idx.h"

namespace mtcki::testing {

struct Parser {
  const char* name;
  void (*parse)(data::Bytes);
};

inline constexpr Parser kParsers[] = {
    {"safetensors", [](data::Bytes b) { data::parse_safetensors(b, "input"); }},
    {"torch_zip", [](data::Bytes b) { data::parse_torch_zip(b, "input"); }},
    {"torch_stream", [](data::Bytes b) { data::parse_torch_stream(b, "input"); }},
    {"cifar_pickle",
     [](data::Bytes b) { data::parse_cifar_pickle(b, "input", b.size() % 2 == 1); }},
    {"cifar_binary",
     [](data::Bytes b) { data::parse_cifar_binary(b, "input", b.size() % 2 == 0); }},
    {"idx", [](data::Bytes b) { data::parse_idx(b, "input"); }},
    {"zip",
     [](data::Bytes b) {
       const data::ZipArchive zip(b, "input");
       for (const data::ZipEntry& e : zip.entries()) zip.read(e);
     }},
    {"onnx", [](data::Bytes b) { data::parse_onnx(b, "input"); }},
    {"png", [](data::Bytes b) { data::decode_png(b, "input"); }},
    {"jpeg", [](data::Bytes b) { data::decode_jpeg(b, "input"); }},
};

// True: accepted. False: refused with DataError. Everything else is a defect and passes through.
inline bool feed(const Parser& parser, data::Bytes content) {
  try {
    parser.parse(content);
    return true;
  } catch (const DataError&) {
    return false;
  }
}

inline int fuzz_one(const char* name, const uint8_t* data, size_t size) {
  for (const Parser& p : kParsers)
    if (std::strcmp(p.name, name) == 0) feed(p, {data, size});
  return 0;
}

}  // namespace mtcki::testing

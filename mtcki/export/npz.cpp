#include "mtcki/export/npz.h"

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

void put(std::string* out, uint64_t v, int bytes) {
  for (int i = 0; i < bytes; ++i, v >>= 8) *out += static_cast<char>(v & 0xff);
}

const char* descr(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "<f4";
    case DType::f64:
      return "<f8";
    case DType::i64:
      return "<i8";
    case DType::i32:
      return "<i4";
    case DType::u8:
      return "|u1";
    case DType::boolean:
      return "|b1";
    default:
      break;
  }
  throw DTypeError(str("write_npz: dtype ", name_of(dtype), " has no NumPy form"));
}

std::string npy(const Tensor& given) {
  const Tensor plain = given.plain();
  const Tensor t = plain.dtype() == DType::bf16 ? plain.to(DType::f32) : plain;
  std::string shape;
  for (int i = 0; i < t.rank(); ++i) shape += str(i ? ", " : "", t.size(i));
  if (t.rank() == 1) shape += ",";
  std::string header =
      str("{'descr': '", descr(t.dtype()), "', 'fortran_order': False, 'shape': (", shape, "), }");
  // Magic 6, version 2, length 2: the data begins at a multiple of 64.
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  put(&out, header.size(), 2);
  return out + header + std::string(static_cast<const char*>(t.raw()), t.nbytes());
}

}  // namespace

void write_npz(const std::string& path, const data::NamedTensors& tensors) {
  std::string out, directory;
  for (const auto& [name, tensor] : tensors) {
    const std::string member = name + ".npy", content = npy(tensor);
    const uint64_t offset = out.size();
    if (offset + content.size() + member.size() > 0xf0000000u || tensors.size() > 65535)
      throw UsageError("\"" + path + "\": too large for .npz; use .safetensors");
    std::string common;           // what the local and the central header share
    put(&common, 20, 2);          // version needed
    put(&common, 0x0800, 2);      // names are UTF-8
    put(&common, 0, 2);           // stored
    put(&common, 0x00210000, 4);  // 1980-01-01: the same tensors give the same file
    put(&common, data::crc32(content.data(), content.size()), 4);
    put(&common, content.size(), 4);
    put(&common, content.size(), 4);
    put(&common, member.size(), 2);
    put(&common, 0, 2);  // no extra field
    out += "PK\x03\x04" + common + member + content;
    directory += "PK\x01\x02";
    put(&directory, 20, 2);
    directory += common;
    put(&directory, 0, 2 + 2 + 2 + 4);  // comment, disk, internal and external attributes
    put(&directory, offset, 4);
    directory += member;
  }
  const uint64_t at = out.size();
  out += directory + "PK\x05\x06";
  put(&out, 0, 4);
  put(&out, tensors.size(), 2);
  put(&out, tensors.size(), 2);
  put(&out, directory.size(), 4);
  put(&out, at, 4);
  put(&out, 0, 2);
  data::write_file_atomic(path, out);
}

}  // namespace mtcki

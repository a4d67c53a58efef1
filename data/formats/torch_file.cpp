// The containers of PyTorch files: ZIP (1.6 and newer) and the stream of pickles before that.
#include <map>
#include <string>
#include <unordered_map>

#include "data/formats/onnx_file.h"
#include "data/formats/safetensors.h"
#include "data/formats/sharded.h"
#include "data/formats/torch_tensors.h"
#include "data/formats/zip.h"

namespace mtcki::data {

namespace {

using Kind = PickleValue::Kind;
using namespace std::string_view_literals;

constexpr std::string_view kStreamStart =
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv;
constexpr int64_t kProtocol = 1001;

bool is_stream_form(Bytes content) { return as_text(content).starts_with(kStreamStart); }
bool is_zip(Bytes content) { return as_text(content).starts_with("PK\x03\x04"sv); }

constexpr char kFromKeras[] =
    "make an ONNX file of it: python -m tf2onnx.convert --keras FILE --output net.onnx";

// What to do with a file of another program.
std::string advice(const std::string& kind) {
  if (kind.starts_with("an HDF5 file")) return kFromKeras;
  if (kind == "a Python pickle" || kind == "a NumPy .npy file")
    return "save the state dict with torch.save";
  return "";
}

[[noreturn]] void refuse_archive(const ZipArchive& zip, const std::string& file_name) {
  std::string found = "another ZIP archive", next = "save it with torch.save";
  for (const ZipEntry& e : zip.entries()) {
    if (e.name.ends_with(".npy")) found = "a NumPy .npz";
    for (const char* ending : {".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".onnx"})
      if (e.name.ends_with(ending)) next = "unpack it: it holds " + e.name.substr(0, 80);
  }
  for (const ZipEntry& e : zip.entries()) {
    if (e.name.find("models/model.json") != std::string::npos ||
        e.name.find("serialized_exported_program") != std::string::npos) {
      found = "an exported program (.pt2, torch.export.save)";
      next = "save its weights: torch.save(dict(torch.export.load(FILE).state_dict), NEW)";
    } else if (e.name == "model.weights.h5") {
      found = "a Keras model";
      next = kFromKeras;
    }
  }
  if (found == "a NumPy .npz")
    next = "save torch.from_numpy(v) of each of its arrays, in a dict, with torch.save";
  throw_data_error(file_name, -1, "a PyTorch archive with data.pkl", found, next);
}

}  // namespace

// Bytes of data.pkl; ten thousand tensors take 2 MB.
static constexpr uint64_t kMostPickled = uint64_t{8} << 20;

StateFile parse_torch_zip(Bytes content, const std::string& file_name, const std::string& key) {
  const ZipArchive zip(content, file_name);
  const ZipEntry* data = nullptr;
  for (const ZipEntry& e : zip.entries())
    if (e.name.ends_with("/data.pkl") && (!data || e.name.size() < data->name.size())) data = &e;
  if (!data) refuse_archive(zip, file_name);
  const std::string stem = data->name.substr(0, data->name.size() - std::string("data.pkl").size());
  if (zip.find(stem + "constants.pkl"))
    throw_data_error(file_name, -1, "a state dict", "TorchScript (torch.jit.save)",
                     "save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)");
  if (const ZipEntry* order = zip.find(stem + "byteorder")) {
    const ZipMember member = zip.read(*order, 64);
    if (as_text(member.bytes) != "little")
      throw_data_error(file_name, -1, "little-endian numbers", "another byte order",
                       "save the file on a little-endian machine");
  }
  const ZipMember pickled = zip.read(*data, kMostPickled);
  ByteReader reader(pickled.bytes, file_name + "/" + data->name.substr(0, 200));
  const Pickle pickle(&reader);
  struct Held {
    ZipMember member;
    TorchStorage storage;
  };
  std::map<std::string, Held, std::less<>> storages;
  return torch_state(
      pickle, file_name, content.size(),
      [&](const TorchStorageId& id) {
        auto it = storages.find(id.key);
        if (it == storages.end()) {
          const std::string name = stem + "data/" + std::string(id.key.substr(0, 200));
          const ZipEntry* entry = zip.find(name);
          if (!entry)
            throw_data_error(file_name, -1, "the member " + name, "none",
                             "the archive is truncated or damaged");
          Held held;
          held.member = zip.read(*entry);
          int64_t bytes = 0;
          if (!checked_multiply(id.count, id.item, &bytes) ||
              static_cast<uint64_t>(bytes) != held.member.bytes.size())
            throw_data_error(file_name, -1,
                             str("storage ", name, " of ", id.count, " x ", id.item, " bytes"),
                             str(held.member.bytes.size(), " bytes"), "the file is damaged");
          held.storage = {id.type, id.count, held.member.bytes};
          it = storages.emplace(std::string(id.key), std::move(held)).first;
          // Moving the vector keeps its heap block, hence the view.
        }
        const TorchStorage& s = it->second.storage;
        if (s.type != id.type || s.count != id.count)
          throw_data_error(file_name, -1, "one type and size per storage", "two",
                           "the file is damaged");
        return s;
      },
      key);
}

StateFile parse_torch_stream(Bytes content, const std::string& file_name, const std::string& key) {
  ByteReader reader(content, file_name);
  reader.take(kStreamStart.size(), "the magic number");
  if (reader.u8("the magic number") != '.')
    reader.fail("the end of the magic number", "something else", "the file is damaged");
  const Pickle protocol(&reader);
  if (protocol.root().kind != Kind::integer || protocol.root().integer != kProtocol)
    reader.fail("protocol 1001", "another", "save the file again with a newer PyTorch");
  const Pickle system(&reader);
  const PickleValue* little = system.find(system.root(), "little_endian");
  if (!little || little->kind != Kind::boolean || !little->integer)
    reader.fail("little-endian numbers", "another byte order",
                "save the file on a little-endian machine");
  const Pickle object(&reader);
  const Pickle keys(&reader);
  if (keys.root().kind != Kind::list) reader.fail("the list of storage keys", "another value");

  // The storages follow in the order of their keys, but what type each has is only in the
  // persistent ids of the object: the walk below needs them located first.
  std::unordered_map<std::string_view, TorchStorageId> ids;
  object.for_each([&](const PickleValue& v) {
    if (v.kind != Kind::persistent) return;
    const TorchStorageId id = torch_storage_id(object, v, file_name);
    const auto [it, fresh] = ids.emplace(id.key, id);
    if (!fresh && (it->second.type != id.type || it->second.count != id.count))
      reader.fail("one type and size per storage", "two", "the file is damaged");
  });
  std::unordered_map<std::string_view, TorchStorage> storages;
  for (const PickleRef r : keys.root().items) {
    const PickleValue& stored = keys.at(r);
    const auto id =
        stored.kind == Kind::text || stored.kind == Kind::bytes ? ids.find(stored.text) : ids.end();
    if (id == ids.end())
      reader.fail("a storage key that the object names", "an unknown one", "the file is damaged");
    const uint64_t count = reader.u64("a storage length");
    if (count != static_cast<uint64_t>(id->second.count))
      reader.fail(str("a storage of ", id->second.count, " elements"), str(count),
                  "the file is damaged");
    int64_t bytes = 0;
    if (!checked_multiply(id->second.count, id->second.item, &bytes))
      reader.fail("a storage inside the file", "a larger one", "the file is damaged");
    storages[stored.text] = {id->second.type, id->second.count,
                             reader.take(static_cast<uint64_t>(bytes), "a storage")};
  }
  return torch_state(
      object, file_name, content.size(),
      [&](const TorchStorageId& id) {
        const auto it = storages.find(id.key);
        if (it == storages.end())
          throw_data_error(file_name, -1, "storage " + std::string(id.key.substr(0, 60)), "none",
                           "the file is damaged");
        return it->second;
      },
      key);
}

StateFile parse_torch(Bytes content, const std::string& file_name, const std::string& key) {
  if (is_zip(content)) return parse_torch_zip(content, file_name, key);
  if (is_stream_form(content)) return parse_torch_stream(content, file_name, key);
  throw_data_error(file_name, 0, "a PyTorch file (torch.save)", describe_content(content),
                   as_text(content).starts_with("\x80")
                       ? "save the state dict with torch.save, not with pickle.dump"
                       : "");
}

StateFile read_torch(const std::string& path, const std::string& key) {
  const MappedFile file(path);
  return parse_torch(file.bytes(), path, key);
}

StateFile read_state_file(const std::string& path, const std::string& key) {
  if (is_onnx(path) && key.empty()) return read_onnx_state(path);
  const MappedFile file(path);
  if (is_zip(file.bytes()) || is_stream_form(file.bytes()))
    return parse_torch(file.bytes(), path, key);
  if (!key.empty())
    throw_data_error(path, -1, str("a PyTorch file, for weights_key \"", key, "\""),
                     describe_content(file.bytes()), "leave weights_key out");
  if (is_sharded_index(path)) return read_sharded(path);
  const std::string kind = recognise(file.bytes());
  if (!kind.empty() && kind != "a safetensors file")
    throw_data_error(path, 0, "weights (.safetensors, .onnx, or a PyTorch .pth)", kind,
                     advice(kind));
  return parse_safetensors(file.bytes(), path);
}

}  // namespace mtcki::data

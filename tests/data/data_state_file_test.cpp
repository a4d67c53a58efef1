// safetensors and PyTorch files.
#include <cmath>
#include <map>

#include "data/formats/checksum.h"
#include "data/formats/half.h"
#include "data/formats/safetensors.h"
#include "data/formats/state_file.h"
#include "data/formats/torch_tensors.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using testing::fixture;
using testing::from_hex;
using ::testing::HasSubstr;
using testing::message_of;
using testing::read_all;
using testing::TempDir;
using testing::write_all_text;

void expect_same(const Tensor& a, const Tensor& b, const std::string& name) {
  ASSERT_EQ(a.dtype(), b.dtype()) << name;
  ASSERT_EQ(a.shape(), b.shape()) << name;
  if (a.nbytes() > 0) {
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.nbytes()), 0) << name;
  }
}

std::string file_of(const std::string& json, const std::string& buffer = "") {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(json.size() >> (8 * i));
  return out + json + buffer;
}
std::string refusal(const std::string& content) {
  return message_of<DataError>([&] { parse_safetensors(as_bytes(content), "f"); });
}

TEST(Safetensors, WritesTheReferenceBytes) {
  TempDir dir;
  write_safetensors(dir / "empty", {});
  EXPECT_EQ(read_all(dir / "empty"), from_hex("08000000000000007b7d202020202020"));
  const NamedTensors tensors = {{"w", Tensor::from<float>({1, 2}, {2})},
                                {"n", Tensor::full({}, 7, DType::i64)}};
  write_safetensors(dir / "two", tensors, {{"format", "pt"}});
  const std::string bytes = read_all(dir / "two");
  EXPECT_EQ(bytes.size(), 168u);
  EXPECT_EQ(crc32c(bytes.data(), bytes.size()), 0x1e4b4d6cu);
}

TEST(Safetensors, SortsByDtypeThenName) {
  TempDir dir;
  write_safetensors(dir / "f", {{"a", Tensor::zeros({1}, DType::boolean)},
                                {"b", Tensor::zeros({1}, DType::bf16)},
                                {"z", Tensor::zeros({1})},
                                {"c", Tensor::zeros({1})},
                                {"d", Tensor::zeros({1}, DType::i64)}});
  std::string names;
  for (const auto& t : read_safetensors(dir / "f").tensors) names += t.first;
  EXPECT_EQ(names, "dczba");
}

TEST(Safetensors, RoundTripOfEveryDtypeShapeAndName) {
  TempDir dir;
  NamedTensors tensors;
  for (const DType d :
       {DType::f32, DType::f64, DType::bf16, DType::i64, DType::i32, DType::u8, DType::boolean})
    for (const Shape& s :
         {Shape{}, Shape{0}, Shape{3}, Shape{2, 0, 3}, Shape{1, 2, 1, 2, 1, 2, 1, 2}}) {
      Tensor t = Tensor::zeros(s, d);
      for (size_t i = 0; i < t.nbytes(); ++i)
        static_cast<uint8_t*>(t.raw())[i] =
            d == DType::boolean ? i % 2 : static_cast<uint8_t>(i * 29);
      tensors.emplace_back(str(name_of(d), s, " \"\\\n\x01 \xc3\xbc"), t);
    }
  const std::map<std::string, std::string> metadata = {{"k \"", "v\t\xe2\x82\xac"}, {"", ""}};
  write_safetensors(dir / "f", tensors, metadata);
  const StateFile back = read_safetensors(dir / "f");
  EXPECT_EQ(back.metadata, metadata);
  ASSERT_EQ(back.tensors.size(), tensors.size());
  std::map<std::string, Tensor> by_name(back.tensors.begin(), back.tensors.end());
  for (const auto& [name, t] : tensors) expect_same(by_name[name], t, name);
}

TEST(Safetensors, StoresBlockedActivationsPlain) {
  TempDir dir;
  Tensor t = Tensor::empty({2, 2 * kChannelBlock, 3, 3});
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
  write_safetensors(dir / "f", {{"x", t.to(Layout::blocked)}});
  expect_same(read_safetensors(dir / "f").tensors[0].second, t, "x");
}

TEST(Safetensors, RefusesToWriteBadNames) {
  TempDir dir;
  const Tensor t = Tensor::zeros({1});
  EXPECT_THROW(write_safetensors(dir / "f", {{"a", t}, {"a", t.to(DType::i64)}}), UsageError);
  EXPECT_THROW(write_safetensors(dir / "f", {{"__metadata__", t}}), UsageError);
  EXPECT_THROW(write_safetensors(dir / "f", {{"\xff", t}}), UsageError);
  EXPECT_THROW(write_safetensors(dir / "f", {{"a", Tensor()}}), UsageError);
  EXPECT_FALSE(file_exists(dir / "f"));
}

TEST(Safetensors, ReadsForeignDtypes) {
  const std::string json = R"({"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                           R"("i":{"dtype":"I8","shape":[2],"data_offsets":[4,6]},)"
                           R"("u":{"dtype":"U32","shape":[1],"data_offsets":[6,10]}})";
  const StateFile f =
      parse_safetensors(as_bytes(file_of(json, from_hex("003c00c0 ff7f ffffffff"))), "f");
  EXPECT_EQ(f.tensors[0].second.to_vector<float>(), (std::vector<float>{1, -2}));
  EXPECT_EQ(f.tensors[1].second.to_vector<int32_t>(), (std::vector<int32_t>{-1, 127}));
  EXPECT_EQ(f.tensors[2].second.to_vector<int64_t>(), (std::vector<int64_t>{4294967295}));
}

TEST(Safetensors, UnknownDtypeIsAnErrorOnlyWhenAskedFor) {
  const std::string text = file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("q":{"dtype":"Q9","shape":[77],"data_offsets":[4,5]}})",
                                   "abcde");
  const SafetensorsView view(as_bytes(text), "f");
  EXPECT_EQ(view.get(view.entries()[0]).numel(), 1);
  EXPECT_THAT(message_of<DataError>([&] { view.get(view.entries()[1]); }), HasSubstr("Q9"));
}

TEST(Safetensors, RefusesBadHeaders) {
  const auto entry = [](const std::string& fields) {
    return file_of("{\"a\":{" + fields + "}}", "abcd");
  };
  const struct {
    std::string content, text;
  } rows[] = {
      {"", "an empty file"},
      {"abc", "8 bytes of the header length"},
      {file_of("{}").substr(0, 9), "a header length of 2"},
      {from_hex("ffffffffffffffff7b7d"), "a header length of 18446744073709551615"},
      {file_of("[]"), "begins with '{'"},
      {file_of(" {}"), "begins with '{'"},
      {file_of("{}x"), "parse error"},
      {file_of("{\"a\":1}"), "unexpected the number 1 for \"a\""},
      {file_of("{\"a\":null}"), "unexpected null"},
      {file_of("{\"\xff\":{}}"), "UTF-8"},
      {file_of("{,}"), "parse error"},
      {file_of(R"({"__metadata__":{"a":1}})"), "for __metadata__ \"a\""},
      {file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "duplicate key \"a\""},
      {file_of(R"({"__metadata__":{"a":{}}})"), "unexpected an object"},
      {entry(R"("dtype":"F32","shape":[1])"), "needs dtype, shape and two data_offsets"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "needs dtype, shape and two"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "three data_offsets"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1)"), "unknown field \"x\""},
      {entry(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), "duplicate key"},
      {entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "the number -1"},
      {entry(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "the number 1.0"},
      {entry(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "unexpected a list"},
      {entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"), "more than 8"},
      {entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "bytes of its shape [2] F32"},
      {entry(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4])"),
       "bytes of its shape"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "to begin at buffer byte 0"},
      {entry(R"("dtype":"U8","shape":[3],"data_offsets":[1,4])"), "to begin at buffer byte 0"},
      {entry(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])"), "expected a file of"},
      {entry(R"("dtype":"U8","shape":[5],"data_offsets":[0,5])"), "truncated"},
      {entry(R"("dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615])"), "the number"},
      {file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
               R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
               "abcd"),
       "to begin at buffer byte 4"},
      {file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
               R"("a":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
               "abcd"),
       "duplicate key \"a\""},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"},
      {"<!DOCTYPE html><html>", "HTML page"},
      {from_hex("504b0304") + "xxxxxxxx", "ZIP archive"},
      {std::string(8 + 20, '{') + std::string(1 << 20, '{'), "header length"},
      {file_of("{\"a\":" + std::string(100000, '[') + "}"), "unexpected a list"},
  };
  for (const auto& row : rows) {
    const std::string text = refusal(row.content);
    EXPECT_THAT(text, HasSubstr(row.text)) << row.content.substr(0, 120);
    EXPECT_THAT(text, HasSubstr("\"f\": "));
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

TEST(Half, AllValuesOfTheFormat) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0xc000), -2.0f);
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(half_to_float(0x03ff), 1023 * 0x1p-24f);
  EXPECT_EQ(half_to_float(0x0400), 0x1p-14f);
  EXPECT_TRUE(std::isinf(half_to_float(0x7c00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7e00)));
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
}

// The archive of formats: torch.save(OrderedDict(w=tensor([1.,2.]), n=tensor(7))) by PyTorch 1.13.
TEST(Torch, PickleOfPyTorch113) {
  const std::string pickled = from_hex(
      "800263636f6c6c656374696f6e730a4f726465726564446963740a71002952710128580100000077710263746f72"
      "6368"
      "2e5f7574696c730a5f72656275696c645f74656e736f725f76320a71032828580700000073746f72616765710463"
      "746f"
      "7263680a466c6f617453746f726167650a71055801000000307106580300000063707571074b02747108514b004b"
      "0285"
      "71094b0185710a8968002952710b74710c52710d58010000006e710e68032828680463746f7263680a4c6f6e6753"
      "746f"
      "726167650a710f580100000031711068074b01747111514b00292989680029527112747113527114752e");
  EXPECT_EQ(crc32(pickled.data(), pickled.size()), 0x6f9eb248u);
  ByteReader reader(as_bytes(pickled), "data.pkl");
  const Pickle pickle(&reader);
  const std::string w = from_hex("0000803f00000040"), n = from_hex("0700000000000000");
  const StateFile f = torch_state(pickle, "f", 1000, [&](const TorchStorageId& id) {
    return TorchStorage{id.type, id.count, as_bytes(id.key == "0" ? w : n)};
  });
  ASSERT_EQ(f.tensors.size(), 2u);
  EXPECT_EQ(f.tensors[0].first, "w");
  EXPECT_EQ(f.tensors[0].second.to_vector<float>(), (std::vector<float>{1, 2}));
  EXPECT_EQ(f.tensors[1].second.shape(), Shape{});
  EXPECT_EQ(f.tensors[1].second.item(), 7);
}

TEST(Torch, BothFormsGiveWhatPyTorchSaved) {
  const StateFile want = read_safetensors(fixture("torch_wrapped.safetensors"));
  for (const char* name : {"torch_wrapped.pth", "torch_wrapped_stream.th"}) {
    const StateFile got = read_state_file(fixture(name));
    EXPECT_EQ(got.tensors[0].first, "module.transposed");  // the file's order and names
    std::map<std::string, Tensor> tensors(got.tensors.begin(), got.tensors.end());
    ASSERT_EQ(tensors.size(), want.tensors.size());
    for (const auto& [key, value] : want.tensors) expect_same(tensors[key], value, key);
    const std::map<std::string, std::string> metadata = {
        {"epoch", "3"}, {"best_prec1", "91.5"}, {"arch", "resnet20"}, {"amp", "false"}};
    EXPECT_EQ(got.metadata, metadata);
  }
}

TEST(Torch, PlainStateDicts) {
  for (const char* name : {"torch_plain.pth", "torch_plain_stream.th"}) {
    const StateFile f = read_torch(fixture(name));
    ASSERT_EQ(f.tensors.size(), 2u) << name;
    EXPECT_EQ(f.tensors[0].second.to_vector<float>(), (std::vector<float>{1, 2}));
    EXPECT_EQ(f.tensors[1].second.item(), 7);
  }
}

TEST(Torch, RefusesPickledModules) {
  for (const char* name : {"torch_module.pth", "torch_module_stream.th"})
    EXPECT_THAT(message_of<DataError>([&] { read_torch(fixture(name)); }),
                HasSubstr("torch.nn.modules.linear.Linear; this is a pickled module: save "
                          "model.state_dict() instead"));
}

// What trainers leave beside the weights is inert, in every protocol; nothing is executed.
TEST(Torch, ObjectsBesideTheWeightsAreNoMatter) {
  for (const char* name : {"torch_extras_2.pth", "torch_extras_4.pth", "torch_extras_5.pth"}) {
    const StateFile f = read_state_file(fixture(name));
    ASSERT_EQ(f.tensors.size(), 2u) << name;
    EXPECT_EQ(f.tensors[0].second.to_vector<float>(), (std::vector<float>{1, 2}));
    EXPECT_EQ(f.tensors[1].second.item(), 7);
  }
  // Inside the state dict it is named, and only who wants it is refused.
  const StateFile f = read_state_file(fixture("torch_object_inside.pth"));
  ASSERT_EQ(f.tensors.size(), 1u);
  EXPECT_THAT(f.unread.at("odd"), HasSubstr("_reconstruct"));
}

TEST(Torch, ParametersTensorsWithAttributesAndExpandedOnes) {
  const StateFile f = read_state_file(fixture("torch_wrapped_tensors.pth"));
  ASSERT_EQ(f.tensors.size(), 4u);
  for (const size_t i : {0, 1, 3})
    EXPECT_EQ(f.tensors[i].second.to_vector<float>(), (std::vector<float>{1, 2})) << i;
  EXPECT_EQ(f.tensors[2].second.to_vector<float>(), std::vector<float>(16, 1.0f));
}

TEST(Sharded, AnIndexNamesItsFiles) {
  TempDir dir;
  const Tensor one = Tensor::full({2}, 1.0), two = Tensor::full({3}, 2.0);
  write_safetensors(dir / "m-1.safetensors", {{"a", one}});
  write_safetensors(dir / "m-2.safetensors", {{"b", two}, {"unlisted", one}});
  const std::string index = dir / "m.safetensors.index.json";
  const auto put = [&](const std::string& map) {
    write_all_text(index, "{\"metadata\": {}, \"weight_map\": {" + map + "}}");
  };
  put("\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\"");
  const StateFile f = read_state_file(index);
  ASSERT_EQ(f.tensors.size(), 2u);
  EXPECT_EQ(f.tensors[1].second.shape(), Shape{3});
  EXPECT_EQ(state_file_parts(index).size(), 3u);
  EXPECT_EQ(state_file_parts(dir / "m-1.safetensors").size(), 1u);
  const auto text = [&] { return message_of<DataError>([&] { read_state_file(index); }); };
  put("\"c\": \"m-1.safetensors\"");
  EXPECT_THAT(text(), HasSubstr("the tensor c of the index"));
  put("\"a\": \"m-3.safetensors\"");
  EXPECT_THAT(text(), HasSubstr("m-3.safetensors\": expected the file"));
  put("\"a\": \"../m-1.safetensors\"");
  EXPECT_THAT(text(), HasSubstr("no file beside it"));
  write_all_text(index, "[]");
  EXPECT_THAT(text(), HasSubstr("an index with weight_map"));
}

Pickle pickle_of(const std::string& text) {
  ByteReader reader(as_bytes(text), "p");
  return Pickle(&reader);
}

TEST(Pickle, CallsAreOnlyRecorded) {
  const std::string system = "\x80\x02" + std::string("cos\nsystem\n(U\x02lstR.");
  const Pickle p = pickle_of(system);
  EXPECT_EQ(p.root().kind, PickleValue::Kind::call);
  EXPECT_EQ(p.called(p.root()), "os.system");
  // Protocols 0 and 1: INST, OBJ, escaped texts, decimal numbers.
  const std::string items =
      "((iposix\nsystem\n(cos\nsystem\nS'l\\x73'\noV\\u00e9\nI01\nI7\nL5L\nF1.5\nt.";
  const Pickle q = pickle_of(items);
  const auto item = [&](size_t i) { return q.at(q.root().items.at(i)); };
  EXPECT_EQ(q.called(item(0)), "posix.system");
  EXPECT_EQ(q.called(item(1)), "os.system");
  EXPECT_EQ(item(2).text, "\xc3\xa9");
  EXPECT_EQ(item(3).kind, PickleValue::Kind::boolean);
  EXPECT_EQ(item(4).integer, 7);
  EXPECT_EQ(item(5).integer, 5);
  EXPECT_EQ(item(6).real, 1.5);
}

std::string pickle_refusal(const std::string& body) {
  return message_of<DataError>([&] { pickle_of("\x80\x02" + body); });
}

TEST(Pickle, RefusesDamage) {
  EXPECT_THAT(pickle_refusal("."), HasSubstr("a value on the pickle stack"));
  EXPECT_THAT(pickle_refusal("t"), HasSubstr("a mark"));
  EXPECT_THAT(pickle_refusal("h\x05"), HasSubstr("memo entry 5"));
  EXPECT_THAT(pickle_refusal("K\x01K\x02R"), HasSubstr("the arguments of a call"));
  EXPECT_THAT(pickle_refusal("K\x01"), HasSubstr("a pickle opcode"));
  EXPECT_THAT(pickle_refusal("\x97"), HasSubstr("0x97"));  // a buffer out of band
  EXPECT_THAT(pickle_refusal("K\x01K\x02\x93"), HasSubstr("the names of a global"));
  EXPECT_THAT(pickle_refusal(from_hex("8006")), HasSubstr("protocol 6"));
  // One text decoded again and again must not multiply.
  std::string bomb = "c_codecs\nencode\nq" + from_hex("00") + "X" + from_hex("e8030000") +
                     std::string(1000, 'x') + "U\x06latin1\x86q\x01";
  for (int i = 0; i < 100; ++i) bomb += "0h" + from_hex("00") + "h\x01R";
  EXPECT_THAT(pickle_refusal(bomb), HasSubstr("values of at most four times"));
}

TEST(Pickle, NumbersAndDeepNesting) {
  const std::string text = from_hex("8002") + "(K\x01M\x02\x01J" + from_hex("feffffff") + "\x8a" +
                           from_hex("02ff7f") + "\x8a" + from_hex("01ff") + "\x8a" +
                           from_hex("00") + "G" + from_hex("3ff8000000000000") + "NX" +
                           from_hex("02000000") + "ab\x88t.";
  ByteReader reader(as_bytes(text), "p");
  const Pickle p(&reader);
  const auto item = [&](size_t i) { return p.at(p.root().items[i]); };
  EXPECT_EQ(item(0).integer, 1);
  EXPECT_EQ(item(1).integer, 258);
  EXPECT_EQ(item(2).integer, -2);
  EXPECT_EQ(item(3).integer, 32767);
  EXPECT_EQ(item(4).integer, -1);
  EXPECT_EQ(item(5).integer, 0);
  EXPECT_EQ(item(6).real, 1.5);
  EXPECT_EQ(item(8).text, "ab");
  std::string deep = from_hex("8002") + ")";
  for (int i = 0; i < 250000; ++i) deep += '\x85';  // a tuple in a tuple in a ...
  deep += ".";
  ByteReader deep_reader(as_bytes(deep), "p");
  EXPECT_EQ(Pickle(&deep_reader).root().items.size(), 1u);
}

// A stream-form file with one tensor "w" whose rebuild arguments are given.
std::string stream_file(const std::string& arguments, const std::string& storages,
                        const std::string& view = "N") {
  const std::string id = "(X" + from_hex("07000000") + "storagectorch\nFloatStorage\nX" +
                         from_hex("01000000") + "0X" + from_hex("03000000") + "cpuK\x06" + view +
                         "tQ";
  const std::string object = from_hex("8002") + "}X" + from_hex("01000000") +
                             "wctorch._utils\n_rebuild_tensor\n(" + id + arguments + "tRs.";
  const std::string keys = from_hex("8002") + "]X" + from_hex("01000000") + "0a.";
  const std::string system = from_hex("8002") + "}X" + from_hex("0d000000") + "little_endian\x88s.";
  return from_hex("80028a0a6cfc9c46f9206aa850192e 80024de9032e") + system + object + keys +
         storages;
}
std::string six_floats() {
  std::string out = from_hex("0600000000000000");
  for (int i = 0; i < 6; ++i) {
    const float v = static_cast<float>(i);
    out.append(reinterpret_cast<const char*>(&v), 4);
  }
  return out;
}

TEST(Torch, HonoursStrideOffsetAndViews) {
  // offset 1, size (2, 2), stride (1, 3): elements 1 4 / 2 5.
  const std::string f = stream_file("K\x01K\x02K\x02\x86K\x01K\x03\x86", six_floats());
  EXPECT_EQ(parse_torch(as_bytes(f), "f").tensors[0].second.to_vector<float>(),
            (std::vector<float>{1, 4, 2, 5}));
  // A view of 3 elements from element 2 of the storage.
  const std::string view = "(X" + from_hex("01000000") + "vK\x02K\x03t";
  const std::string g = stream_file("K\x01K\x02\x85K\x01\x85", six_floats(), view);
  EXPECT_EQ(parse_torch(as_bytes(g), "f").tensors[0].second.to_vector<float>(),
            (std::vector<float>{3, 4}));
}

TEST(Torch, RefusesTensorsOutsideTheirStorage) {
  const auto text = [](const std::string& arguments, const std::string& view = "N") {
    const std::string f = stream_file(arguments, six_floats(), view);
    return message_of<DataError>([&] { parse_torch(as_bytes(f), "f"); });
  };
  const std::string zero = from_hex("4b00");
  const std::string view = "(X" + from_hex("01000000") + "vK\x02K\x03t";
  const std::string bad_view = "(X" + from_hex("01000000") + "vK\x04K\x03t";
  EXPECT_THAT(text("K\x01K\x06\x85K\x01\x85"), HasSubstr("inside its storage of 6"));
  EXPECT_THAT(text(zero + "J" + from_hex("ffffff7f") + "\x85" + zero + "\x85"),
              HasSubstr("no larger than the file"));  // stride 0
  EXPECT_THAT(text("J" + from_hex("ffffffff") + "K\x01\x85K\x01\x85"), HasSubstr("offset >= 0"));
  EXPECT_THAT(text("K\x05K\x02\x85J" + from_hex("ffffffff") + "\x85"), HasSubstr("strides >= 0"));
  EXPECT_THAT(text(zero + "K\x02\x85)"), HasSubstr("one stride per size"));
  EXPECT_THAT(text(zero + "K\x04\x85K\x01\x85", view), HasSubstr("inside its storage of 3"));
  EXPECT_THAT(text(zero + "K\x01\x85K\x01\x85", bad_view), HasSubstr("a view inside its storage"));
  // Huge sizes whose product wraps.
  const std::string huge = "\x8a\x08" + from_hex("0000000000000040");
  EXPECT_THAT(text(zero + huge + huge + "\x86K\x01K\x01\x86"), HasSubstr("inside its storage"));
}

TEST(Torch, RefusesOtherFiles) {
  const auto text = [](const std::string& content) {
    TempDir dir;
    write_all_text(dir / "f.pth", content);
    return message_of<DataError>([&] { read_state_file(dir / "f.pth"); });
  };
  EXPECT_THAT(text(""), HasSubstr("an empty file"));
  EXPECT_THAT(text("<html>not found</html>"), HasSubstr("HTML page"));
  EXPECT_THAT(text("Invalid username or password."), HasSubstr("a text that begins \"Invalid"));
  EXPECT_THAT(text("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(text(from_hex("80047d942e")), HasSubstr("a Python pickle"));
  EXPECT_THAT(text(read_all(fixture("stored.zip"))), HasSubstr("a NumPy .npz"));
  EXPECT_THAT(text(read_all(fixture("rgb.png"))), HasSubstr("PNG"));
  EXPECT_THAT(text(from_hex("80028a0a6cfc9c46f9206aa850192e 80024de9032e 8002") + "}X" +
                   from_hex("0d000000") + "little_endian\x89s."),
              HasSubstr("byte order"));
  const std::string real = read_all(fixture("torch_plain.pth"));
  EXPECT_THAT(text(real.substr(0, real.size() / 2)), HasSubstr("truncated"));
  std::string flipped = real;
  const size_t one = real.find(from_hex("0000803f00000040"));  // the storage 1, 2
  ASSERT_NE(one, std::string::npos);
  flipped[one] ^= 1;
  EXPECT_THAT(text(flipped), HasSubstr("CRC-32"));
}

TEST(Checksum, Crc32cOfTheStandardsDigits) { EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u); }

}  // namespace
}  // namespace mtcki::data

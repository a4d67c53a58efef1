// Which of a PyTorch file's values are the weights, and what is said where none can be read.
#include "data/formats/state_file.h"
#include "tests/data/data_testing.h"

namespace mtcki::data {
namespace {

using testing::fixture;
using ::testing::HasSubstr;
using testing::message_of;

TEST(Torch, WeightsKeyChooses) {
  const auto first = [](const char* name, const char* key) {
    return read_state_file(fixture(name), key).tensors.at(0).second.to_vector<float>();
  };
  EXPECT_EQ(first("torch_list.pkl", "1"), (std::vector<float>{2, 4}));
  EXPECT_EQ(first("torch_ema.pth", "state_dict_ema"), (std::vector<float>{2, 4}));
  EXPECT_EQ(first("torch_ema.pth", "student.deep.er"), (std::vector<float>{1, 2}));
  const StateFile f = read_state_file(fixture("torch_ema.pth"));
  EXPECT_EQ(f.tensors[0].second.to_vector<float>(), (std::vector<float>{1, 2}));
  ASSERT_EQ(f.notes.size(), 1u);
  EXPECT_THAT(f.notes[0], HasSubstr("weights_key = \"state_dict_ema\""));
  EXPECT_THAT(read_state_file(fixture("torch_beside.pth")).notes.at(0),
              HasSubstr("took model; other weights lie beside it: weights_key = \"teacher\""));
  const auto text = [](const char* name, const char* key) {
    return message_of<DataError>([&] { read_state_file(fixture(name), key); });
  };
  EXPECT_THAT(text("torch_list.pkl", ""), HasSubstr("a list of 2; choose one by its index"));
  EXPECT_THAT(text("torch_list.pkl", "2"), HasSubstr("the keys 0 to 1"));
  EXPECT_THAT(text("torch_ema.pth", "ema"),
              HasSubstr("the keys model_state_dict, state_dict_ema, student"));
  EXPECT_THAT(text("torch_ema.pth", "student.x"), HasSubstr("the keys deep.er"));
  EXPECT_THAT(text("torch_wrapped.safetensors", "x"), HasSubstr("leave weights_key out"));
}

TEST(Torch, WeightsUnderAnUnknownKeyAreTakenWhenTheyAreTheOnlyOnes) {
  const StateFile f = read_state_file(fixture("torch_only.pth"));
  ASSERT_EQ(f.tensors.size(), 1u);
  EXPECT_EQ(f.tensors[0].first, "l.weight");
  EXPECT_EQ(f.metadata.at("epoch"), "3");
  EXPECT_THAT(f.notes.at(0), HasSubstr("took netC, the only weights in it"));
  EXPECT_THAT(message_of<DataError>([] { read_state_file(fixture("torch_several.pth")); }),
              HasSubstr("several: 0, 2.best; choose one: weights_key (--weights-key) = \"0\""));
  EXPECT_EQ(read_state_file(fixture("torch_several.pth"), "2.best")
                .tensors.at(0)
                .second.to_vector<float>(),
            (std::vector<float>{2, 4}));
}

// What PyTorch computes when it reads them, and what is no plain number.
TEST(Torch, TensorsThatAreNotWhatTheirStorageHolds) {
  const auto text = [](const char* name) {
    return message_of<DataError>([&] { read_state_file(fixture(name)); });
  };
  EXPECT_THAT(text("torch_negated.pth"), HasSubstr("resolve_neg()"));
  EXPECT_THAT(text("torch_complex.pth"), HasSubstr("found a ComplexFloatStorage"));
  EXPECT_THAT(read_state_file(fixture("torch_quantised.pth")).unread.at("l.weight"),
              HasSubstr("save v.dequantize()"));
}

TEST(Torch, ForeignFormsAreNamed) {
  const auto text = [](const char* name) {
    return message_of<DataError>([&] { read_state_file(fixture(name)); });
  };
  EXPECT_THAT(text("torch_script.pt"), HasSubstr("torch.jit.load(FILE).state_dict()"));
  EXPECT_THAT(text("torch_exported.pt2"), HasSubstr("torch.export.load(FILE).state_dict"));
  EXPECT_THAT(text("torch_own_module.pth"),
              HasSubstr("an object of __main__.Net; this is a pickled module"));
}

}  // namespace
}  // namespace mtcki::data

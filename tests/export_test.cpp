// Weights for other programs: .npz reads back bit for bit, the .onnx graph has the nodes of its family.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "data/npy.h"
#include "mtcki/npz_file.h"
#include "mtcki/onnx_export.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Npz, ReadsBackBitForBit) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("mtcki_" + std::to_string(getpid()) + ".npz"))
          .string();
  const data::NamedTensors tensors = {
      {"conv1.weight", Tensor::from(std::vector<float>{1, -2, 3.5f, 4, 5, 6}, {2, 3})},
      {"count", Tensor::from(std::vector<int64_t>{7}, {})},
      {"row", Tensor::from(std::vector<double>{1e-300, 2}, {2})},
      {"bytes", Tensor::from(std::vector<uint8_t>{0, 255}, {2})},
      {"none", Tensor::zeros({0, 4})}};
  write_npz(path, tensors);
  const data::NamedTensors back = data::read_npz(path);
  std::filesystem::remove(path);
  ASSERT_EQ(back.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(back[i].first, tensors[i].first);
    ASSERT_EQ(back[i].second.describe(), tensors[i].second.describe());
    if (tensors[i].second.nbytes() == 0) continue;
    EXPECT_EQ(std::memcmp(back[i].second.raw(), tensors[i].second.raw(), back[i].second.nbytes()),
              0);
  }
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

// op_type is field 4 of a node: tag 0x22, length, name.
int nodes(const std::string& model, const std::string& op) {
  std::string needle = "\x22";
  needle += static_cast<char>(op.size());
  return count(model, needle + op);
}

TEST(Onnx, EveryFamilyHasItsNodes) {
  struct Case {
    const char* model;
    int64_t channels, size;
    int convs, norms, adds, pools, slices;
  };
  for (const Case& c :
       {Case{"resnet20", 3, 32, 21, 21, 9, 0, 0}, Case{"resnet20_a", 3, 32, 19, 19, 9, 0, 2},
        Case{"wrn16_1", 3, 32, 15, 13, 6, 0, 0}, Case{"vgg11", 1, 28, 8, 8, 0, 3, 0},
        Case{"vgg8", 3, 64, 5, 5, 0, 4, 0}}) {
    nn::Init init(0);
    const nn::ModelSpec spec{c.model, c.channels, c.size, 10};
    const auto net = nn::make_classifier(spec, init);
    const std::string model = onnx_model(*net, spec, {{0.5}, {0.25}});
    EXPECT_EQ(nodes(model, "Conv"), c.convs) << c.model;
    EXPECT_EQ(nodes(model, "BatchNormalization"), c.norms) << c.model;
    EXPECT_EQ(nodes(model, "Add"), c.adds) << c.model;
    EXPECT_EQ(nodes(model, "MaxPool"), c.pools) << c.model;
    EXPECT_EQ(nodes(model, "Slice"), c.slices) << c.model;
    EXPECT_EQ(nodes(model, "Gemm"), 1) << c.model;
    EXPECT_THAT(model, HasSubstr("images"));
    EXPECT_THAT(model, Not(HasSubstr("num_batches_tracked")));
  }
}

}  // namespace
}  // namespace mtcki

// Weights for other programs: .npz holds them bit for bit, the .onnx graph computes the network.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "data/formats/file_bytes.h"
#include "data/formats/zip.h"
#include "mtcki/export/npz.h"
#include "mtcki/export/onnx.h"
#include "mtcki/export/onnx_graph.h"
#include "mtcki/networks/onnx_import.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"
#include "tests/mtcki/onnx_reader.h"

namespace mtcki {
namespace {

// What numpy.load() reads: a ZIP of members, each a header that is a Python dict, then the bytes in C
// order from a multiple of 64 on.
TEST(Npz, HoldsTheTensorsBitForBit) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("mtcki_" + std::to_string(getpid()) + ".npz"))
          .string();
  const data::NamedTensors tensors = {
      {"conv1.weight", Tensor::from(std::vector<float>{1, -2, 3.5f, 4, 5, 6}, {2, 3})},
      {"count", Tensor::from(std::vector<int64_t>{7}, {})},
      {"row", Tensor::from(std::vector<double>{1e-300, 2}, {2})},
      {"bytes", Tensor::from(std::vector<uint8_t>{0, 255}, {2})},
      {"none", Tensor::zeros({0, 4})}};
  const std::vector<std::string> types = {"<f4", "<i8", "<f8", "|u1", "<f4"};
  const std::vector<std::string> shapes = {"(2, 3)", "()", "(2,)", "(2,)", "(0, 4)"};
  write_npz(path, tensors);
  std::ifstream in(path, std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(in), {});
  std::filesystem::remove(path);
  const data::ZipArchive zip(data::as_bytes(content), path);
  ASSERT_EQ(zip.entries().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    ASSERT_EQ(zip.entries()[i].name, name + ".npy");
    const data::ZipMember member = zip.read(zip.entries()[i]);
    const std::string npy(member.bytes.begin(), member.bytes.end());
    ASSERT_EQ(npy.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    const size_t begin = 10 + static_cast<uint8_t>(npy[8]) + 256 * static_cast<uint8_t>(npy[9]);
    EXPECT_EQ(begin % 64, 0u);
    EXPECT_EQ(npy.find("{'descr': '" + types[i] +
                       "', 'fortran_order': False, 'shape': " + shapes[i] + ", }"),
              10u)
        << npy.substr(0, begin);
    EXPECT_EQ(npy.substr(begin),
              std::string(static_cast<const char*>(tensor.raw()), tensor.nbytes()));
  }
}

// One Relu, checked by hand and by onnx.checker with full_check.
TEST(Onnx, TheSmallestModelIsByteForByteTheKnownOne) {
  OnnxGraph g;
  g.node("Relu", {"x"}, {}, "y", "r");
  g.input("x", {4});
  g.output("y", {4});
  const unsigned char expected[] = {
      0x08, 0x07, 0x12, 0x05, 0x6d, 0x74, 0x63, 0x6b, 0x69, 0x3a, 0x40, 0x0a, 0x0f, 0x0a,
      0x01, 0x78, 0x12, 0x01, 0x79, 0x1a, 0x01, 0x72, 0x22, 0x04, 0x52, 0x65, 0x6c, 0x75,
      0x12, 0x01, 0x67, 0x5a, 0x14, 0x0a, 0x01, 0x78, 0x12, 0x0f, 0x0a, 0x0d, 0x08, 0x01,
      0x12, 0x09, 0x0a, 0x03, 0x12, 0x01, 0x4e, 0x0a, 0x02, 0x08, 0x04, 0x62, 0x14, 0x0a,
      0x01, 0x79, 0x12, 0x0f, 0x0a, 0x0d, 0x08, 0x01, 0x12, 0x09, 0x0a, 0x03, 0x12, 0x01,
      0x4e, 0x0a, 0x02, 0x08, 0x04, 0x42, 0x04, 0x0a, 0x00, 0x10, 0x0d};
  EXPECT_EQ(g.model("g", 13),
            std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  EXPECT_EQ(testing::read_onnx(g.model("g", 17)).ir_version, 8);
  EXPECT_THROW(g.model("g", 12), UsageError);
  EXPECT_THROW(g.model("g", 18), UsageError);
}

// A network whose batch norms do something: statistics and affine parameters away from 0 and 1.
std::unique_ptr<nn::Classifier> network(const nn::ModelSpec& spec) {
  nn::Init init(0);
  auto net = nn::make_classifier(spec, init);
  uint64_t draw = 0;
  for (nn::BatchNorm2d* norm : net->batch_norms()) {
    const auto fill = [&](Tensor t, double low, double high) {
      const Tensor u = rand(t.shape(), Rng{1, rng_stream("export_test"), draw++});
      t.copy_(add(mul(u, high - low), low));
    };
    fill(norm->weight.data(), 0.5, 1.5);
    fill(norm->bias.data(), -0.3, 0.3);
    fill(norm->running_mean, -0.5, 0.5);
    fill(norm->running_var, 0.3, 2.0);
  }
  net->eval();
  return net;
}

// The file is executed node by node and gives the network's logits.
TEST(Onnx, EveryFamilyComputesWhatTheNetworkComputes) {
  struct Case {
    const char* model;
    int64_t channels, size;
    int convs, norms, adds, pools, slices;
    int norms_left;  // when folded
  };
  for (const Case& c :
       {Case{"resnet20", 3, 32, 21, 21, 9, 0, 0, 0}, Case{"resnet20_a", 3, 32, 19, 19, 9, 0, 2, 0},
        Case{"wrn16_1", 3, 32, 15, 13, 6, 0, 0, 7}, Case{"wrn10_2", 3, 32, 10, 7, 3, 0, 0, 3},
        Case{"vgg11", 1, 28, 8, 8, 0, 3, 0, 0}, Case{"vgg8", 3, 64, 5, 5, 0, 4, 0, 0},
        // A pool has no weights: only the network itself knows of it.
        Case{"vgg8_pool", 3, 32, 5, 5, 0, 5, 0, 0}, Case{"vgg8_pool", 1, 28, 5, 5, 0, 4, 0, 0},
        Case{"resnet18_pool", 3, 32, 20, 20, 8, 1, 0, 0}}) {
    const nn::ModelSpec spec{c.model, c.channels, c.size, 10};
    const auto net = network(spec);
    const Tensor images =
        randn({2, c.channels, c.size, c.size}, Rng{2, rng_stream("export_test"), 0});
    const NoGradScope no_grad;
    const Tensor expected = net->features(Variable(images)).logits.data();
    for (const OnnxOptions& o : {OnnxOptions{13, false}, OnnxOptions{17, true}}) {
      const testing::OnnxModel model =
          testing::read_onnx(onnx_model(*net, spec, {{0.5}, {0.25}}, o));
      EXPECT_EQ(model.opset, o.opset);
      EXPECT_EQ(model.inputs, (std::vector<std::string>{"images"}));
      EXPECT_EQ(model.outputs, (std::vector<std::string>{"logits"}));
      EXPECT_EQ(model.metadata.at("arch"), c.model);
      EXPECT_EQ(model.metadata.at("mean"), "0.5");
      EXPECT_EQ(model.count("Conv"), c.convs) << c.model;
      EXPECT_EQ(model.count("BatchNormalization"), o.fold_bn ? c.norms_left : c.norms) << c.model;
      EXPECT_EQ(model.count("Add"), c.adds) << c.model;
      EXPECT_EQ(model.count("MaxPool"), c.pools) << c.model;
      EXPECT_EQ(model.count("Slice"), c.slices) << c.model;
      EXPECT_EQ(model.count("Gemm"), 1) << c.model;
      for (const auto& [name, tensor] : model.initializers)
        EXPECT_EQ(name.find("num_batches_tracked"), std::string::npos);
      EXPECT_TRUE(allclose(testing::run_onnx(model, images), expected, 1e-4, 1e-4))
          << c.model << (o.fold_bn ? ", folded" : "");
    }
  }
}

// The importer, which is tested against PyTorch, reads back the network. RepVGG's three branches
// are one convolution when folded.
TEST(Onnx, EveryFamilyIsReadBackAsTheSameNetwork) {
  struct Case {
    const char* model;
    int64_t size;
    int convs, norms, convs_folded, norms_folded, adds, adds_folded;
  };
  for (const Case& c : {Case{"resnet50_w0.0625_in", 32, 53, 53, 53, 0, 16, 16},
                        Case{"vgg11_bn_w0.125", 32, 8, 8, 8, 0, 0, 0},
                        Case{"mobilenet_v2_w0.1", 16, 52, 52, 52, 0, 12, 12},
                        Case{"shufflenet_v2_x0_5_w0.25_in", 32, 56, 56, 56, 0, 0, 0},
                        Case{"densenet121_w0.125_pool", 16, 120, 121, 120, 62, 0, 0},
                        Case{"repvgg_a0_w0.125", 16, 44, 62, 22, 0, 40, 0}}) {
    const nn::ModelSpec spec{c.model, 3, c.size, 10};
    const auto net = network(spec);
    const Tensor images = randn({2, 3, c.size, c.size}, Rng{2, rng_stream("export_test"), 1});
    const NoGradScope no_grad;
    const Tensor expected = (*net)(Variable(images)).data();
    for (const bool fold : {false, true}) {
      const std::string bytes =
          onnx_model(*net, spec, {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}}, {13, fold});
      const testing::OnnxModel model = testing::read_onnx(bytes);
      EXPECT_EQ(model.count("Conv"), fold ? c.convs_folded : c.convs) << c.model;
      EXPECT_EQ(model.count("BatchNormalization"), fold ? c.norms_folded : c.norms) << c.model;
      EXPECT_EQ(model.count("Add"), fold ? c.adds_folded : c.adds) << c.model;
      const auto back =
          import_onnx("m.onnx", data::parse_onnx(data::as_bytes(bytes), "m.onnx"), spec);
      back->eval();
      EXPECT_TRUE(allclose((*back)(Variable(images)).data(), expected, 1e-3, 1e-4))
          << c.model << (fold ? ", folded" : "");
    }
  }
}

}  // namespace
}  // namespace mtcki

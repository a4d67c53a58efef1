// Networks from ONNX files. That they compute what PyTorch computed is golden_check's part
// (golden_onnx); here: features, statistics, saving, what is refused, damage.
#include "mtcki/networks/onnx_import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "mtcki/export/onnx.h"
#include "mtcki/export/onnx_graph.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/statistics_check.h"
#include "mtcki/networks/teacher.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/rng.h"

namespace mtcki::onnx_import_test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const nn::ModelSpec kSpec{kGraphModel, 3, 16, 7};  // of the fixtures
const data::Normalization kHalf{{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};

std::string fixture(const std::string& name) {
  return std::string(MTCKI_SOURCE_DIR) + "/tests/data/onnx/" + name + ".onnx";
}

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

Tensor noise(const Shape& shape) { return randn(shape, Rng{1, rng_stream("onnx"), 0}); }

Tensor logits_of(nn::Classifier& net, const Tensor& x) {
  const NoGradScope no_grad;
  net.eval();
  return net(Variable(x)).data();
}

double distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double most = 0, size = 1e-6;
  for (size_t i = 0; i < x.size(); ++i) {
    most = std::max(most, std::abs(x[i] - y[i]));
    size = std::max(size, std::abs(y[i]));
  }
  return most / size;
}

// The message with which a model is refused.
std::string refusal(const std::string& bytes, const nn::ModelSpec& spec) {
  try {
    import_onnx("m.onnx", data::parse_onnx(data::as_bytes(bytes), "m.onnx"), spec);
  } catch (const DataError& e) {
    return e.what();
  }
  return "(accepted)";
}

class OnnxImport : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_onnx_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  fs::path dir_;
};

TEST_F(OnnxImport, FeaturesStatisticsAndStagesAreThoseOfATeacher) {
  std::vector<std::string> notes;
  auto net = import_onnx(fixture("mobile"), kSpec, &notes);
  EXPECT_THAT(notes.back(), HasSubstr("5 batch norms, features of 16"));
  EXPECT_EQ(net->feature_dim(), 16);
  Teacher teacher({"m", kSpec, kHalf, 1.0, -1}, std::move(net));
  const Variable x(mul(noise({4, 3, 16, 16}), 0.1), true);
  const Teacher::View view = teacher.view(x, Teacher::kBn | Teacher::kStages);
  EXPECT_EQ(view.logits.shape(), (Shape{4, 7}));
  EXPECT_EQ(view.feature.shape(), (Shape{4, 16}));
  ASSERT_EQ(view.bn_inputs.size(), 5u);
  EXPECT_EQ(view.bn_inputs[1].shape(), (Shape{4, 32, 8, 8}));
  EXPECT_TRUE(view.bn_moments[4].sums.defined());
  ASSERT_FALSE(view.stage_inputs.empty());
  EXPECT_EQ(view.stage_inputs[0].shape(), (Shape{4, 16, 8, 8}));
  EXPECT_GT(teacher.macs(), 0);
}

// A pass for taps alone ends at the last of them, which may stand between layers that run as one.
TEST_F(OnnxImport, APassEndsAtItsLastTap) {
  const auto net = import_onnx(fixture("mobile"), kSpec);
  net->eval();
  const Variable x(noise({2, 3, 16, 16}), true);
  int passes = 0;
  const nn::HookHandle count = net->named_modules().back().second->add_before_hook(
      [&](const nn::Module&, const Variable&) { ++passes; });
  std::vector<nn::Module*> modules = net->stages();
  modules.push_back(net->batch_norms()[1]);
  for (nn::Module* module : modules) {
    const std::vector<nn::Module*> tapped{module};
    const nn::Classifier::Output whole = net->features(x, tapped);
    ASSERT_EQ(whole.logits.shape(), (Shape{2, 7}));
    const int before = passes;
    const std::vector<Variable> alone = net->taps(x, tapped);
    EXPECT_EQ(passes, before) << module->name() << ": layers behind the tap have run";
    ASSERT_EQ(alone.size(), 1u);
    EXPECT_TRUE(identical(alone[0].data(), whole.taps[0].data())) << module->name();
  }
  EXPECT_EQ(passes, static_cast<int>(modules.size()));
}

// Without a gradient a convolution takes its batch norm and ReLU along.
TEST_F(OnnxImport, LayersThatRunAsOneGiveTheSame) {
  for (const char* name : {"mobile", "shuffle", "dense"}) {
    const auto net = import_onnx(fixture(name), kSpec);
    const Tensor x = noise({2, 3, 16, 16});
    const Tensor fused = logits_of(*net, x);
    std::vector<nn::HookHandle> apart;
    for (auto& [path, module] : net->named_modules())
      apart.push_back(module->add_before_hook([](const nn::Module&, const Variable&) {}));
    EXPECT_LT(distance(fused, logits_of(*net, x)), 1e-5) << name;
  }
}

// Constants and what linear layers give are f32 beside activations in bf16.
TEST_F(OnnxImport, ComputesInBf16) {
  for (const char* name : {"mobile", "dense", "tall", "modern", "attentive"}) {
    const auto net = import_onnx(fixture(name), kSpec);
    const Tensor x = noise({2, 3, 16, 16}), exact = logits_of(*net, x);
    net->set_precision(nn::Precision::bf16);
    const Tensor rounded = logits_of(*net, x);
    EXPECT_LT(distance(rounded, exact), 0.1) << name;
    EXPECT_FALSE(identical(rounded, exact)) << name;
  }
}

TEST_F(OnnxImport, ConstantsThatAreNoScale) {
  OnnxGraph g;
  g.input("x", {3, 4, 4});
  const Tensor c = noise({3, 1, 1}), w = noise({7, 48});
  const std::string y = g.node("Mul", {"x", g.initializer(c)});
  g.node("Gemm", {g.node("Flatten", {y}), g.initializer(w)}, {OnnxGraph::integer("transB", 1)},
         "logits");
  g.output("logits", {7});
  const nn::ModelSpec spec{kGraphModel, 3, 4, 7};
  const auto net = import_onnx("m", data::parse_onnx(data::as_bytes(g.model("g", 13)), "m"), spec);
  const Tensor x = noise({2, 3, 4, 4});
  const Tensor expected = matmul(mul(x, c).reshape({2, 48}), w, false, true);
  EXPECT_LT(distance(logits_of(*net, x), expected), 1e-5);
}

// y, a graph's value [N,7,H,W], becomes logits [N,7].
std::unique_ptr<nn::GraphClassifier> finished(OnnxGraph& g, const std::string& y,
                                              std::vector<std::string>* notes = nullptr) {
  g.node("Flatten", {g.node("GlobalAveragePool", {y})}, {}, "logits");
  g.output("logits", {7});
  return import_onnx("m", data::parse_onnx(data::as_bytes(g.model("g", 13)), "m"),
                     {kGraphModel, 3, 15, 7}, notes);
}

// TensorFlow's: images whose channels come last, borders of pools that differ. The same in ours.
TEST_F(OnnxImport, FormsOfTensorFlow) {
  const Tensor w = noise({7, 3, 3, 3}), slopes = noise({7, 1, 1});
  const auto stride = OnnxGraph::integers("strides", {2, 2});
  const auto kernel = [](int64_t k) { return OnnxGraph::integers("kernel_shape", {k, k}); };
  OnnxGraph theirs, ours;
  theirs.input("x", {15, 15, 3});
  const std::string turned =
      theirs.node("Transpose", {"x"}, {OnnxGraph::integers("perm", {0, 3, 1, 2})});
  const auto text = [](const char* name, const char* value) {
    return std::move(data::ProtoWriter().text(1, name).text(4, value).integer(20, 3));
  };
  std::string y = theirs.node("Relu", {theirs.node("Conv", {turned, theirs.initializer(w)})});
  y = theirs.node("MaxPool", {y}, {kernel(2), stride, text("auto_pad", "SAME_UPPER")});
  y = theirs.node("PRelu", {theirs.node("Sub", {y, theirs.initializer(Tensor::full({}, 0.5))}),
                            theirs.initializer(slopes)});
  y = theirs.node("Add", {y, theirs.node("ReduceMax", {y}, {OnnxGraph::integers("axes", {2, 3})})});
  std::vector<std::string> notes;
  const auto net = finished(theirs, y, &notes);
  EXPECT_THAT(notes.at(0), HasSubstr("[N,H,W,C]"));

  ours.input("x", {3, 15, 15});
  y = ours.node("Relu",
                {ours.node("Conv", {"x", ours.initializer(w)})});  // 13 x 13, no less than 0
  y = ours.node(
      "Pad",
      {y, ours.initializer(Tensor::from(std::vector<int64_t>{0, 0, 0, 0, 0, 0, 1, 1}, {8}))});
  y = ours.node("MaxPool", {y}, {kernel(2), stride});
  y = ours.node("Sub", {y, ours.initializer(Tensor::full({}, 0.5))});
  const std::string low = ours.node("Sub", {y, ours.node("Relu", {y})});
  y = ours.node("Add", {ours.node("Relu", {y}), ours.node("Mul", {low, ours.initializer(slopes)})});
  y = ours.node("Add", {y, ours.node("MaxPool", {y}, {kernel(7), stride})});
  const auto same = finished(ours, y);
  const Tensor x = noise({2, 3, 15, 15});
  EXPECT_LT(distance(logits_of(*net, x), logits_of(*same, x)), 1e-5);
}

// x[:, 1] with the dimension put back, as torchvision's GoogLeNet takes the colours apart.
TEST_F(OnnxImport, OnePositionOfADimension) {
  const auto list = [](const std::vector<int64_t>& v) {
    return Tensor::from(v, {static_cast<int64_t>(v.size())});
  };
  const Tensor w = noise({7, 1, 3, 3}), x = noise({2, 3, 15, 15});
  OnnxGraph picked, sliced;
  picked.input("x", {3, 15, 15});
  std::string y = picked.node(
      "Gather", {"x", picked.initializer(Tensor::from(std::vector<int64_t>{1}, Shape{}))},
      {OnnxGraph::integer("axis", 1)});
  y = picked.node("Unsqueeze", {y, picked.initializer(list({1}))});
  const auto net = finished(picked, picked.node("Conv", {y, picked.initializer(w)}));
  sliced.input("x", {3, 15, 15});
  y = sliced.node("Slice", {"x", sliced.initializer(list({1})), sliced.initializer(list({2})),
                            sliced.initializer(list({1}))});
  const auto same = finished(sliced, sliced.node("Conv", {y, sliced.initializer(w)}));
  EXPECT_EQ(distance(logits_of(*net, x), logits_of(*same, x)), 0.0);
}

// (x - m) / s before the first layer: it takes images as they are, or as bytes.
TEST_F(OnnxImport, ANetworkThatNormalisesItself) {
  const auto saved = [&](double white) {
    OnnxGraph g;
    g.input("x", {3, 15, 15});
    const std::string centred = g.node(
        "Sub", {"x", g.initializer(Tensor::from(std::vector<float>{0.4f, 0.5f, 0.6f}, {3, 1, 1}))});
    const std::string y = g.node("Div", {centred, g.initializer(Tensor::full({3, 1, 1}, 0.25))});
    const std::string z =
        white == 1 ? y : g.node("Div", {"x", g.initializer(Tensor::full({}, white))});
    g.node("Flatten",
           {g.node("GlobalAveragePool", {g.node("Conv", {z, g.initializer(noise({7, 3, 3, 3}))})})},
           {}, "logits");
    g.output("logits", {7});
    std::ofstream(path("own.onnx"), std::ios::binary) << g.model("g", 13);
    ModelCard card;
    std::vector<std::string> notes;
    const auto net = load_model(path("own.onnx"), {kGraphModel, 3, 15, 7}, "", &card, &notes);
    EXPECT_THAT(notes.back(), HasSubstr("normalises its images itself"));
    EXPECT_EQ(card.normalization.mean, (std::vector<double>{0, 0, 0}));
    EXPECT_NEAR(input_scaling(*net).shift[0], white == 1 ? -1.6 : 0.0, 1e-6);
    return card.normalization.std[0];
  };
  EXPECT_EQ(saved(1), 1.0);
  EXPECT_EQ(saved(255), 1.0 / 255);
}

// Features beside the logits: the output that has as many numbers as there are classes.
TEST_F(OnnxImport, OfSeveralOutputsTheOneOfTheClasses) {
  OnnxGraph g;
  g.input("x", {3, 15, 15});
  g.node("Flatten", {g.node("GlobalAveragePool", {"x"})}, {}, "features");
  g.output("features", {3});
  const std::string y = g.node("Conv", {"x", g.initializer(noise({7, 3, 3, 3}))});
  std::vector<std::string> notes;
  EXPECT_EQ(finished(g, y, &notes)->spec().model.num_classes, 7);
  EXPECT_THAT(notes.at(0), HasSubstr("of its 2 outputs \"logits\""));
}

data::ProtoWriter text(const char* name, const char* value) {
  return std::move(data::ProtoWriter().text(1, name).text(4, value).integer(20, 3));
}

// 4x4 pixels, 10 row + column, resized to 1x8: the values, or the message of a refusal.
std::string resized(const char* op, const std::vector<data::ProtoWriter>& attributes,
                    bool by_scales = false) {
  OnnxGraph g;
  g.input("x", {1, 4, 4});
  std::vector<std::string> in{"x", "", ""};
  if (std::string(op) == "Upsample") in.resize(1);
  if (by_scales) {
    if (in.size() > 1) in.pop_back();
    in.push_back(g.initializer(Tensor::from(std::vector<float>{1, 1, 0.25, 2}, {4})));
  } else {
    in.push_back(g.initializer(Tensor::from(std::vector<int64_t>{1, 1, 1, 8}, {4})));
  }
  g.node("Flatten", {g.node(op, in, attributes)}, {}, "logits");
  g.output("logits", {8});
  const nn::ModelSpec spec{kGraphModel, 1, 4, 8};
  data::OnnxModel model = data::parse_onnx(data::as_bytes(g.model("g", 13)), "m");
  model.inputs[0].sizes[0] = 1;  // written for one image, which sizes then begin with
  try {
    const auto net = import_onnx("m", model, spec);
    Tensor x = Tensor::empty({1, 1, 4, 4});
    for (int64_t i = 0; i < 16; ++i) x.data<float>()[i] = static_cast<float>(i / 4 * 10 + i % 4);
    std::string out;
    for (const float v : logits_of(*net, x).to_vector<float>())
      out += str(out.empty() ? "" : " ", std::round(v * 100) / 100);
    return out;
  } catch (const DataError& e) {
    return e.what();
  }
}

TEST_F(OnnxImport, ResizesAsTheStandardSays) {
  const auto coordinates = [](const char* v) { return text("coordinate_transformation_mode", v); };
  const auto linear = text("mode", "linear");
  EXPECT_EQ(resized("Resize", {}), "10 10 11 11 12 12 13 13");  // half_pixel, round_prefer_floor
  EXPECT_EQ(resized("Resize", {text("nearest_mode", "round_prefer_ceil")}),
            "20 20 21 21 22 22 23 23");
  EXPECT_EQ(resized("Resize", {coordinates("asymmetric"), text("nearest_mode", "ceil")}),
            "0 1 1 2 2 3 3 3");
  EXPECT_EQ(resized("Resize", {coordinates("asymmetric"), text("nearest_mode", "floor")}, true),
            "0 0 1 1 2 2 3 3");
  EXPECT_EQ(resized("Resize", {linear}), "15 15.25 15.75 16.25 16.75 17.25 17.75 18");
  EXPECT_EQ(resized("Resize", {linear, coordinates("pytorch_half_pixel")}),
            "0 0.25 0.75 1.25 1.75 2.25 2.75 3");
  EXPECT_EQ(resized("Resize", {linear, coordinates("align_corners")}),
            "0 0.43 0.86 1.29 1.71 2.14 2.57 3");
  EXPECT_EQ(resized("Upsample", {}, true), "0 0 1 1 2 2 3 3");
  EXPECT_EQ(resized("Upsample", {linear}, true), "0 0.5 1 1.5 2 2.5 3 3");
  EXPECT_EQ(resized("Resize", {text("mode", "cubic"), coordinates("align_corners")}),
            "0 0.34 0.8 1.33 1.67 2.2 2.66 3");
  EXPECT_THAT(resized("Resize", {text("mode", "sinc")}),
              AllOf(HasSubstr("Resize \"Resize_"), HasSubstr("mode \"sinc\" is not taken")));
  EXPECT_THAT(resized("Resize", {coordinates("tf_crop_and_resize")}), HasSubstr("tf_crop"));
  EXPECT_THAT(resized("Resize", {linear, OnnxGraph::integer("antialias", 1)}),
              HasSubstr("antialias is not taken"));
}

TEST_F(OnnxImport, OurFilesKeepTheNetwork) {
  for (const char* name :
       {"mobile", "shuffle", "shuffle_dynamo", "dense", "tall", "modern", "attentive"}) {
    const auto net = import_onnx(fixture(name), kSpec);
    write_model_file(path("w.safetensors"), *net, {kSpec, kHalf, -1, -1, "", {}});
    ModelCard card;
    const auto again = load_model(path("w.safetensors"), kSpec, "", &card);
    EXPECT_EQ(card.spec.name, "onnx");
    EXPECT_EQ(card.normalization.mean, kHalf.mean);
    const Tensor x = noise({3, 3, 16, 16});
    EXPECT_TRUE(identical(logits_of(*net, x), logits_of(*again, x))) << name;
    EXPECT_FALSE(statistics_fit(*again, kSpec).layers.empty()) << name;
    write_onnx(path("w.onnx"), *net, kSpec, kHalf);
    EXPECT_LT(
        distance(logits_of(*load_model(path("w.onnx"), kSpec, "", &card), x), logits_of(*net, x)),
        1e-5)
        << name;
  }
}

// What the program exports comes back as the same function.
TEST_F(OnnxImport, ReadsOurOwnExports) {
  for (const char* name : {"resnet8", "resnet8_a", "wrn10_1", "vgg8_w0.125"})
    for (const bool fold : {false, true}) {
      nn::Init init(2);
      nn::ModelSpec spec{name, 3, 32, 10};
      const auto net = nn::make_classifier(spec, init);
      OnnxOptions options;
      options.fold_bn = fold;
      write_onnx(path("net.onnx"), *net, spec, kHalf, options);
      spec.name = kGraphModel;
      ModelCard card;
      const auto read = load_model(path("net.onnx"), spec, "", &card);
      EXPECT_EQ(card.normalization.std, kHalf.std);
      const Tensor x = noise({2, 3, 32, 32});
      EXPECT_LT(distance(logits_of(*read, x), logits_of(*net, x)), 1e-4) << name << fold;
      EXPECT_EQ(read->feature_dim(), net->feature_dim());
      EXPECT_THAT([&] { onnx_model(*read, spec, kHalf, {.fold_bn = true}); },
                  ThrowsMessage<UsageError>(HasSubstr("not folded")));
    }
}

// A graph says which operators it has by itself; images of another size pass where no size is
// written into it.
TEST_F(OnnxImport, ImagesOfAnotherSize) {
  nn::ModelSpec larger = kSpec;
  larger.image_size = 24;
  const auto net = import_onnx(fixture("mobile"), larger);
  EXPECT_EQ(logits_of(*net, noise({2, 3, 24, 24})).shape(), (Shape{2, 7}));
  EXPECT_THAT(refusal(content_of(fixture("shuffle")), larger),
              HasSubstr("do not fit images of 24x24"));
  larger.image_size = 1;
  EXPECT_THAT(refusal(content_of(fixture("dense")), larger), HasSubstr("too small"));
}

TEST_F(OnnxImport, RefusesInOneLineWhatItCannotDo) {
  const std::string mobile = content_of(fixture("mobile"));
  nn::ModelSpec other = kSpec;
  other.num_classes = 10;
  EXPECT_THAT(refusal(mobile, other), HasSubstr("7 classes, but 10 are needed"));
  other = kSpec;
  other.in_channels = 1;
  EXPECT_THAT(refusal(mobile, other), HasSubstr("3 channels, but 1 are needed"));
  const auto with = [](const char* op, const std::vector<data::ProtoWriter>& attributes = {}) {
    OnnxGraph g;
    g.input("x", {3, 16, 16});
    const std::string y = g.node(op, {"x"}, attributes);
    g.node("Gemm",
           {g.node("Flatten", {g.node("GlobalAveragePool", {y})}),
            g.initializer(Tensor::zeros({7, 3}))},
           {OnnxGraph::integer("transB", 1)}, "logits");
    g.output("logits", {7});
    return refusal(g.model("g", 13), kSpec);
  };
  EXPECT_EQ(with("Relu"), "(accepted)");
  EXPECT_THAT(with("Sin"), AllOf(HasSubstr("Sin \"Sin_"), HasSubstr("not among those")));
  EXPECT_THAT(with("Transpose", {OnnxGraph::integers("perm", {1, 0, 2, 3})}),
              HasSubstr("only products of rows"));
  // What nobody here looks at may mean another function.
  EXPECT_THAT(with("Relu", {OnnxGraph::integer("slope", 1)}),
              HasSubstr("its attribute \"slope\" is not taken"));
  EXPECT_THAT(with("Cast", {OnnxGraph::integer("to", 7)}), HasSubstr("into integers"));
  EXPECT_EQ(with("Cast", {OnnxGraph::integer("to", 10)}), "(accepted)");
  const auto convolution = [](int64_t kernel) {
    OnnxGraph g;
    g.input("x", {3, 16, 16});
    const std::string y = g.node("Conv", {"x", g.initializer(noise({7, 3, 3, 3}))},
                                 {OnnxGraph::integers("kernel_shape", {kernel, kernel})});
    g.node("Flatten", {g.node("GlobalAveragePool", {y})}, {}, "logits");
    g.output("logits", {7});
    return refusal(g.model("g", 13), kSpec);
  };
  EXPECT_EQ(convolution(3), "(accepted)");
  EXPECT_THAT(convolution(5), HasSubstr("kernel_shape is not that of its weight"));
  OnnxGraph twice;
  twice.input("x", {3, 16, 16});
  twice.node("Relu", {"x"}, {}, "y");
  twice.node("Sigmoid", {"x"}, {}, "y");
  twice.output("y", {7});
  EXPECT_THAT(refusal(twice.model("g", 13), kSpec), HasSubstr("makes \"y\" a second time"));
}

// Bytes as input: the values of its pixels are not those of a normalisation to [0, 1].
TEST_F(OnnxImport, RefusesBytes) {
  data::OnnxModel model = data::read_onnx(fixture("mobile"));
  model.inputs[0].is_real = false;
  EXPECT_THROW(import_onnx("m", model, kSpec), DataError);
  std::string bytes = content_of(fixture("mobile"));
  EXPECT_TRUE(data::parse_onnx(data::as_bytes(bytes), "m").inputs[0].is_real);
}

TEST_F(OnnxImport, ALastSoftmaxIsLeftOut) {
  OnnxGraph g;
  g.input("x", {3, 4, 4});
  const std::string y = g.node("Gemm", {g.node("Flatten", {"x"}), g.initializer(noise({7, 48}))},
                               {OnnxGraph::integer("transB", 1)});
  g.node("Softmax", {y}, {}, "p");
  g.output("p", {7});
  std::vector<std::string> notes;
  const nn::ModelSpec spec{kGraphModel, 3, 4, 7};
  const auto net =
      import_onnx("m", data::parse_onnx(data::as_bytes(g.model("g", 13)), "m"), spec, &notes);
  EXPECT_THAT(notes[0], HasSubstr("Softmax"));
  EXPECT_EQ(net->spec().nodes.back().op, "linear");
}

// Every damage ends in a DataError or in a network, and never in more memory than the file has.
TEST_F(OnnxImport, FlippedBitsNeverCrash) {
  for (const char* name : {"mobile", "shuffle", "modern"}) {
    const std::string whole = content_of(fixture(name));
    int64_t accepted = 0, refused = 0;
    for (size_t at = 0; at < whole.size(); at += 101)
      for (const int bit : {0, 2, 6}) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
        try {
          import_onnx("m", data::parse_onnx(data::as_bytes(damaged), "m"), kSpec);
          ++accepted;
        } catch (const DataError&) {
          ++refused;
        }
      }
    EXPECT_GT(refused, 100) << name;
    EXPECT_GT(accepted, 100) << name << ": weights have no checksum";
  }
}

TEST_F(OnnxImport, DamagedGraphsOfOurFilesAreRefused) {
  const auto net = import_onnx(fixture("mobile"), kSpec);
  const std::string good = graph_json(net->spec());
  const nn::StateDict state = net->state_dict();
  EXPECT_NO_THROW(read_graph("f", good, state));
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"conv\"", "\"cnov\""},
           {"\"feature\":", "\"feature\":9"},
           {"\"in\":[0]", "\"in\":[99]"},
           {"\"ints\":[3,16", "\"ints\":[3,1600000000"},
           {"{\"", "[\""}}) {
    std::string bad = good;
    const size_t at = bad.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    bad.replace(at, from.size(), to);
    EXPECT_THROW(read_graph("f", bad, state), DataError) << to;
  }
}

}  // namespace
}  // namespace mtcki::onnx_import_test

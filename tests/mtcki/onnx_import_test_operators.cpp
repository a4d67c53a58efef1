// One ONNX operator at a time: values and gradients as PyTorch 2.15 computes them in f64, and
// what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/functions.h"
#include "mtcki/export/onnx_graph.h"
#include "mtcki/networks/onnx_import.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;
using Attributes = std::vector<data::ProtoWriter>;
using Reals = std::vector<float>;
using Integers = std::vector<int64_t>;

data::ProtoWriter word(const char* name, const char* value) {
  return std::move(data::ProtoWriter().text(1, name).text(4, value).integer(20, 3));
}
const auto integer = OnnxGraph::integer;
const auto integers = OnnxGraph::integers;
const auto real = OnnxGraph::real;

Tensor list(const Integers& v) { return Tensor::from(v, {std::ssize(v)}); }
Tensor reals(const Reals& v) { return Tensor::from(v, {std::ssize(v)}); }

std::string rounded(const Tensor& t) {
  std::string out;
  for (const double v : t.to_vector<double>())
    out += str(out.empty() ? "" : " ", std::round(v * 1000) / 1000 + 0.0);
  return out;
}

struct Input {
  Shape image;  // behind N
  Reals values;
};
const Input kSteps{{1, 2, 2}, {-2, -0.5, 0, 1.5}};
const Input kPositive{{1, 2, 2}, {0.25, 0.5, 1, 4}};
const Input kImage{{2, 2, 2}, {1, 2, 4, 8, 3, 1, -1, 5}};

// The result of g's value y of one image, flat, and the gradient of the sum of i times its i-th
// number; or the message of a refusal.
std::string result_of(OnnxGraph& g, const std::string& y, const Input& in, int64_t numbers,
                      int64_t opset = 13) {
  g.node("Flatten", {y}, {}, "logits");
  g.output("logits", {numbers});
  data::OnnxModel model = data::parse_onnx(data::as_bytes(g.model("g", 13)), "m");
  model.opset = opset;
  model.inputs[0].sizes = {-1, in.image[0], -1, -1};  // lines too begin as an image
  try {
    const auto net = import_onnx("m", model, {kGraphModel, in.image[0], in.image[2], numbers});
    net->eval();
    Shape shape{1};
    for (const int64_t size : in.image) shape.push_back(size);
    const Variable x(Tensor::from(in.values, shape), true);
    const Variable out = (*net)(x);
    Tensor weights = Tensor::empty(out.shape());
    for (int64_t i = 0; i < numbers; ++i) weights.data<float>()[i] = static_cast<float>(i + 1);
    sum(mul(out, Variable(weights))).backward();
    return rounded(out.data()) + " | " + rounded(x.grad());
  } catch (const DataError& e) {
    return e.what();
  }
}

// The same of one operator, whose further inputs are constants.
std::string of(const char* op, const Input& in, const Attributes& attributes = {},
               const std::vector<Tensor>& more = {}, int64_t numbers = -1, int64_t opset = 13) {
  OnnxGraph g;
  g.input("x", {in.image[0], in.image[1], in.image[2]});
  std::vector<std::string> inputs{"x"};
  for (const Tensor& t : more) inputs.push_back(t.defined() ? g.initializer(t) : "");
  const std::string y = g.node(op, inputs, attributes);
  return result_of(g, y, in, numbers < 0 ? std::ssize(in.values) : numbers, opset);
}

TEST(OnnxOperators, FunctionsAndTheirGradients) {
  const auto power = [](float p, const Input& in) {
    return of("Pow", in, {}, {Tensor::full({}, double{p})});
  };
  EXPECT_EQ(of("Elu", kSteps), "-0.865 -0.393 0 1.5 | 0.135 1.213 3 4");
  EXPECT_EQ(of("Elu", kSteps, {real("alpha", 0.5)}), "-0.432 -0.197 0 1.5 | 0.068 0.607 1.5 4");
  EXPECT_EQ(of("Selu", kSteps), "-1.52 -0.692 0 1.576 | 0.238 2.133 5.274 4.203");
  EXPECT_EQ(of("Celu", kSteps, {real("alpha", 0.5)}), "-0.491 -0.316 0 1.5 | 0.018 0.736 3 4");
  EXPECT_EQ(of("Softplus", kSteps), "0.127 0.474 0.693 1.701 | 0.119 0.755 1.5 3.27");
  EXPECT_EQ(of("Softsign", kSteps), "-0.667 -0.333 0 0.6 | 0.111 0.889 3 0.64");
  EXPECT_EQ(of("Mish", kSteps), "-0.253 -0.221 0 1.403 | -0.108 0.579 1.8 4.354");
  EXPECT_EQ(of("Gelu", kSteps), "-0.046 -0.154 0 1.4 | -0.085 0.265 1.5 4.51");
  EXPECT_EQ(of("Gelu", kSteps, {word("approximate", "tanh")}),
            "-0.045 -0.154 0 1.4 | -0.086 0.265 1.5 4.511");
  EXPECT_EQ(of("Swish", kSteps, {real("alpha", 2)}),
            "-0.036 -0.134 0 1.429 | -0.053 0.145 1.5 4.352");
  EXPECT_EQ(of("ThresholdedRelu", kSteps), "0 0 0 1.5 | 0 0 0 4");
  EXPECT_EQ(of("Abs", kSteps), "2 0.5 0 1.5 | -1 -2 0 4");
  EXPECT_EQ(of("Neg", kSteps), "2 0.5 0 -1.5 | -1 -2 -3 -4");
  EXPECT_EQ(of("Exp", kSteps), "0.135 0.607 1 4.482 | 0.135 1.213 3 17.927");
  EXPECT_EQ(of("Erf", kSteps), "-0.995 -0.52 0 0.966 | 0.021 1.758 3.385 0.476");
  EXPECT_EQ(of("Reciprocal", kPositive), "4 2 1 0.25 | -16 -8 -3 -0.25");
  EXPECT_EQ(of("Sqrt", kPositive), "0.5 0.707 1 2 | 1 1.414 1.5 1");
  EXPECT_EQ(of("Log", kPositive), "-1.386 -0.693 0 1.386 | 4 4 3 1");
  EXPECT_EQ(power(3, kSteps), "-8 -0.125 0 3.375 | 12 1.5 0 27");
  EXPECT_EQ(power(1.5, kPositive), "0.125 0.354 1 8 | 0.75 2.121 4.5 12");
  EXPECT_EQ(power(-2, kPositive), "16 4 1 0.063 | -128 -32 -6 -0.125");
  EXPECT_EQ(power(0.5, kPositive), "0.5 0.707 1 2 | 1 1.414 1.5 1");
  EXPECT_THAT(power(100, kPositive), HasSubstr("a power of 100 is not taken"));
  EXPECT_EQ(of("PRelu", kSteps, {}, {reals({0.25, 2})}), "-0.5 -1 0 1.5 | 0.25 4 0.75 4");
  EXPECT_THAT(of("Celu", kSteps, {real("alpha", 0)}), HasSubstr("alpha is 0"));
  EXPECT_THAT(of("Gelu", kSteps, {word("approximate", "sine")}), HasSubstr("\"sine\""));
  EXPECT_THAT(of("Sin", kSteps), HasSubstr("not among those that are imported"));
}

TEST(OnnxOperators, OfTwoValuesAndMore) {
  OnnxGraph g, w;
  g.input("x", {1, 2, 2});
  EXPECT_EQ(result_of(g, g.node("Max", {"x", g.node("Neg", {"x"})}), kSteps, 4),
            "2 0.5 0 1.5 | -1 -2 3 4");  // of two that are the same the first has the gradient
  w.input("x", {1, 2, 2});
  const std::string large = w.node("Greater", {"x", w.initializer(Tensor::full({}, 1.0))});
  EXPECT_EQ(result_of(w, w.node("Where", {large, "x", w.node("Mul", {"x", "x"})}), kSteps, 4),
            "4 0.25 0 1.5 | -4 -2 0 4");
  OnnxGraph s;
  s.input("x", {1, 2, 2});
  EXPECT_EQ(result_of(s, s.node("Mul", {"x", s.node("Sign", {"x"})}), kSteps, 4),
            "2 0.5 0 1.5 | -1 -2 0 4");
  EXPECT_EQ(of("Min", kSteps, {}, {Tensor::full({}, -1.0)}), "-2 -1 -1 -1 | 1 0 0 0");
  // Constants beside which the image vanishes in f32, before it.
  for (const Tensor& low : {Tensor::full({}, -3e38), reals({-3e38F, -3e38F})}) {
    OnnxGraph l;
    l.input("x", {1, 2, 2});
    EXPECT_EQ(result_of(l, l.node("Max", {l.initializer(low), "x"}), kSteps, 4),
              "-2 -0.5 0 1.5 | 1 2 3 4");
  }
  EXPECT_EQ(of("Sum", kSteps, {}, {reals({1, 2}), reals({3, 4})}), "2 5.5 4 7.5 | 1 2 3 4");
  EXPECT_EQ(of("Mean", kSteps, {}, {reals({1, 2}), reals({4, 6})}),
            "1 2.5 1.667 3.167 | 0.333 0.667 1 1.333");
  EXPECT_THAT(of("Max", kSteps, {}, {reals({1, 2, 3})}), HasSubstr("sizes that do not fit"));
}

TEST(OnnxOperators, Reductions) {
  const auto over = [](const Integers& axes) {
    return Attributes{integers("axes", axes), integer("keepdims", 0)};
  };
  EXPECT_EQ(of("ReduceSum", kImage, {integer("keepdims", 0)}, {list({1})}, 4),
            "4 3 3 13 | 1 2 3 4 1 2 3 4");
  EXPECT_EQ(of("ReduceL2", kImage, over({2, -1}), {}, 2),
            "9.22 6 | 0.108 0.217 0.434 0.868 1 0.333 -0.333 1.667");
  EXPECT_EQ(of("ReduceL1", kImage, over({3}), {}, 4), "3 12 4 6 | 1 1 2 2 3 3 -4 4");
  EXPECT_EQ(of("ReduceMax", kImage, over({3, 1}), {}, 2), "3 8 | 0 0 0 2 1 0 0 0");
  EXPECT_EQ(of("ReduceMin", kImage, over({2}), {}, 4), "1 2 -1 1 | 1 2 0 0 0 4 3 0");
  EXPECT_EQ(of("ReduceSumSquare", kImage, over({1}), {}, 4), "10 5 17 89 | 2 8 24 64 6 4 -6 40");
  EXPECT_EQ(of("ReduceLogSumExp", kImage, over({2, 3}), {}, 2),
            "8.021 5.145 | 0.001 0.002 0.018 0.979 0.234 0.032 0.004 1.73");
  EXPECT_EQ(of("ReduceL2", {{1, 2, 2}, {0, 0, 0, 0}}, over({3, 2}), {}, 1), "0 | 0 0 0 0");
  for (const Integers& axes : {Integers{0, 1}, {2, 2}, {}})
    EXPECT_THAT(of("ReduceSum", kImage, {}, {list(axes)}), HasSubstr("other than the images"));
  EXPECT_THAT(of("ReduceMean", kImage, over({4})), HasSubstr("axis 4 of 4 dimensions"));
  EXPECT_THAT(of("ReduceProd", kImage, over({1})), HasSubstr("not among those"));
}

TEST(OnnxOperators, SoftmaxOverTheAxisOfItsVersion) {
  // Behind it stands a function, so that it is not the last operator of a classifier.
  const auto softmax = [](const Attributes& attributes, int64_t opset) {
    OnnxGraph g;
    g.input("x", {2, 2, 2});
    return result_of(g, g.node("Neg", {g.node("Neg", {g.node("Softmax", {"x"}, attributes)})}),
                     kImage, 8, opset);
  };
  const char* const last =
      "0.269 0.731 0.018 0.982 0.881 0.119 0.002 0.998 | "
      "-0.197 0.197 -0.018 0.018 -0.105 0.105 -0.002 0.002";
  EXPECT_EQ(softmax({}, 13), last);
  EXPECT_EQ(softmax({integer("axis", 3)}, 11), last);
  EXPECT_EQ(softmax({integer("axis", 1)}, 13),
            "0.119 0.731 0.993 0.953 0.881 0.269 0.007 0.047 | "
            "-0.42 -0.786 -0.027 -0.181 0.42 0.786 0.027 0.181");
  EXPECT_EQ(softmax({integer("axis", 2)}, 11),
            "0.001 0.002 0.018 0.979 0.117 0.016 0.002 0.865 | "
            "-0.003 -0.005 -0.017 0.025 -0.306 -0.026 -0.001 0.333");
  EXPECT_THAT(softmax({integer("axis", 0)}, 13), HasSubstr("over the images"));
  OnnxGraph g;  // whose softmax is 0 in f32
  g.input("x", {1, 2, 2});
  const std::string far = g.node("Mul", {"x", g.initializer(Tensor::full({}, 200.0))});
  EXPECT_EQ(
      result_of(g, g.node("Neg", {g.node("LogSoftmax", {far}, {integer("axis", 3)})}), kSteps, 4),
      "300 0 300 0 | -200 200 -600 600");
  EXPECT_THAT(softmax({integer("axis", -9)}, 13), HasSubstr("axis -9 of 4 dimensions"));
}

TEST(OnnxOperators, NormalisationsOfAnImage) {
  const Tensor one_two = reals({1, 2}), zero_one = reals({0, 1});
  EXPECT_EQ(of("LayerNormalization", kImage, {integer("axis", 2)},
               {reals({1, 2, 3, 4}).reshape({2, 2}), reals({0, 1, 0, 1}).reshape({2, 2})}, 8, 17),
            "-1.026 -0.306 0.28 7.341 0.447 0.106 -4.025 6.367 | "
            "-0.266 0.068 0.363 -0.165 -6.172 -1.878 3.309 4.74");
  EXPECT_EQ(of("InstanceNormalization", kImage, {}, {one_two, zero_one}),
            "-1.026 -0.653 0.093 1.585 1.894 0.106 -1.683 3.683 | "
            "-0.149 0.075 0.149 -0.075 -1.431 -0.358 0.716 1.073");
  const char* const group =
      "-0.716 -0.334 0.43 1.957 1.095 -0.432 -1.959 2.623 | "
      "-2.855 -2.325 -1.647 -0.674 0.878 1.345 1.813 3.464";
  EXPECT_EQ(
      of("GroupNormalization", kImage, {integer("num_groups", 1)}, {one_two, zero_one}, 8, 21),
      group);
  // Before opset 21 a weight for each group: of two groups of one channel, as of an instance.
  EXPECT_EQ(
      of("GroupNormalization", kImage, {integer("num_groups", 2)}, {one_two, zero_one}, 8, 18),
      of("InstanceNormalization", kImage, {}, {one_two, zero_one}));
  EXPECT_EQ(of("LRN", kImage, {integer("size", 3), real("alpha", 3), real("beta", 0.75)}),
            "0.166 0.522 0.458 0.274 0.497 0.261 -0.114 0.171 | "
            "-0.196 -0.783 0.153 -0.192 -0.256 0.913 0.849 0.068");
  EXPECT_THAT(of("GroupNormalization", kImage, {integer("num_groups", 3)}, {one_two, zero_one}),
              HasSubstr("3 groups of 2 channels"));
  EXPECT_THAT(of("GroupNormalization", kImage, {integer("num_groups", -1)}, {one_two, zero_one}),
              HasSubstr("-1 groups of 2 channels"));
  EXPECT_THAT(of("InstanceNormalization", kImage, {}, {reals({1}), zero_one}),
              HasSubstr("does not fit"));
  const std::vector<Tensor> statistics{one_two, zero_one, zero_one, one_two};
  EXPECT_EQ(
      of("BatchNormalization", kImage, {integer("spatial", 1), real("epsilon", 0)}, statistics),
      "1 2 4 8 3.828 1 -1.828 6.657 | 1 2 3 4 7.071 8.485 9.899 11.314");
  EXPECT_THAT(of("BatchNormalization", kImage, {integer("spatial", 0)}, statistics),
              HasSubstr("of every pixel"));
  EXPECT_THAT(of("LayerNormalization", kImage, {integer("axis", 0)}, {one_two}),
              HasSubstr("over the images"));
  EXPECT_THAT(of("LRN", kImage, {integer("size", INT64_MAX)}), HasSubstr("is not taken"));
}

TEST(OnnxOperators, Borders) {
  const Input square{{1, 2, 2}, {1, 2, 4, 8}};
  const auto pads = [](const Integers& v) { return std::vector<Tensor>{list(v)}; };
  EXPECT_EQ(of("Pad", {{1, 3, 3}, {1, 2, 4, 8, 3, 1, 0, 0, 0}}, {word("mode", "reflect")},
               pads({0, 0, 1, 1, 0, 0, 0, 0}), 16),
            "3 8 3 1 2 1 2 4 3 8 3 1 0 0 0 0 | 6 12 8 12 24 16 14 28 16");
  EXPECT_EQ(of("Pad", square, {word("mode", "edge")}, pads({0, 0, 0, 2, 0, 0, 1, 0}), 12),
            "1 1 1 2 4 4 4 8 4 4 4 8 | 6 4 48 20");
  EXPECT_EQ(of("Pad", square, {}, {list({0, 0, 0, 1, 0, 0, 1, 0}), Tensor::full({}, -3.0)}, 9),
            "-3 1 2 -3 4 8 -3 -3 -3 | 2 3 5 6");
  EXPECT_EQ(of("Pad", square, {}, {list({1, 0}), Tensor::full({}, 5.0), list({-1})}, 6),
            "5 1 2 5 4 8 | 2 3 5 6");
  EXPECT_THAT(of("Pad", square, {word("mode", "reflect")}, pads({0, 0, 2, 0, 0, 0, 0, 0})),
              HasSubstr("too much padding"));
  EXPECT_THAT(of("Pad", square, {word("mode", "edge")}, pads({0, 0, INT64_MAX, 0, 0, 0, 0, 0})),
              HasSubstr("too much padding"));
  EXPECT_EQ(of("Pad", square, {}, pads({0, 0, -1, 0, 0, 0, 0, 1}), 3), "4 8 0 | 0 0 1 2");
  EXPECT_EQ(of("Pad", square, {}, {list({0, 0, 0, 1, 0, 0, 0, -1}), Tensor::full({}, 5.0)}),
            "5 1 5 4 | 2 0 4 0");
  EXPECT_THAT(of("Pad", square, {}, pads({0, 0, INT64_MIN, 0, 0, 0, 0, 0})),
              HasSubstr("would be empty"));
  EXPECT_THAT(of("Pad", square, {word("mode", "edge")}, pads({0, 0, -1, 0, 0, 0, 0, 0})),
              HasSubstr("negative padding"));
  EXPECT_THAT(of("Pad", square, {}, pads({1, 0, 0, 0, 0, 0, 0, 0})), HasSubstr("pads the images"));
  EXPECT_THAT(of("Pad", square, {word("mode", "wrap")}, pads({0, 0, 1, 0, 0, 0, 0, 0})),
              HasSubstr("\"wrap\""));
}

TEST(OnnxOperators, PartsOfADimension) {
  const auto slice = [](int64_t begin, int64_t end, int64_t axis, int64_t step, int64_t numbers) {
    return of("Slice", kImage, {}, {list({begin}), list({end}), list({axis}), list({step})},
              numbers);
  };
  const auto gather = [](const Integers& at, int64_t axis, int64_t numbers) {
    return of("Gather", kImage, {integer("axis", axis)}, {list(at)}, numbers);
  };
  EXPECT_EQ(slice(-1, INT64_MIN, 1, -1, 8), "3 1 -1 5 1 2 4 8 | 5 6 7 8 1 2 3 4");
  EXPECT_EQ(slice(1, INT64_MAX, 3, 2, 4), "2 8 1 5 | 0 1 0 2 0 3 0 4");
  EXPECT_EQ(slice(0, 2, 1, INT64_MAX, 4), "1 2 4 8 | 1 2 3 4 0 0 0 0");
  EXPECT_EQ(gather({1, 0, -1}, 3, 12), "2 1 2 8 4 8 1 3 1 5 -1 5 | 2 4 5 10 8 16 11 22");
  EXPECT_THAT(slice(0, 2, 1, 0, 8), HasSubstr("a step of 0"));
  EXPECT_THAT(slice(1, 1, 2, 1, 8), HasSubstr("would be empty"));
  EXPECT_THAT(gather({2}, 3, 4), HasSubstr("axis 2 of 2 dimensions"));
  EXPECT_THAT(gather({}, 3, 4), HasSubstr("would be empty"));
  EXPECT_THAT(gather(Integers(1025, 0), 3, 4), HasSubstr("too many parts"));
}

TEST(OnnxOperators, PoolsThatNoKernelDoes) {
  const Input image{{1, 3, 3}, {1, 2, 4, 8, 3, 1, 0, -2, 5}};
  const auto two = integers("kernel_shape", {2, 2}), dilated = integers("dilations", {2, 2});
  EXPECT_EQ(of("MaxPool", image, {two, dilated}, {}, 1), "5 | 0 0 0 0 0 0 0 0 1");
  EXPECT_EQ(of("MaxPool", image, {two, dilated, integers("pads", {1, 1, 1, 1})}),
            "3 8 3 2 5 2 3 8 3 | 0 10 0 10 20 0 0 0 5");
  EXPECT_EQ(of("AveragePool", image,
               {two, integers("strides", {2, 2}), integers("pads", {0, 0, 1, 1}),
                integer("ceil_mode", 1)},
               {}, 4),
            "3.5 2.5 -1 5 | 0.25 0.25 1 0.25 0.25 1 1.5 1.5 4");
  EXPECT_THAT(of("MaxPool", image, {two, integers("dilations", {3, 3})}),
              HasSubstr("would be empty"));
  EXPECT_THAT(of("MaxPool", image, {two, integers("dilations", {0, 1})}), HasSubstr("positive"));
  EXPECT_THAT(of("MaxPool", image, {two, integers("pads", {0, 0, 0, INT64_MAX})}),
              HasSubstr("of that size"));
}

TEST(OnnxOperators, BlocksSumsAndRepetitions) {
  EXPECT_EQ(of("SpaceToDepth", kImage, {integer("blocksize", 2)}),
            "1 3 2 1 4 -1 8 5 | 1 3 5 7 2 4 6 8");
  const Input column{{4, 1, 1}, {1, 2, 3, 4}};
  EXPECT_EQ(of("DepthToSpace", column, {integer("blocksize", 2)}), "1 2 3 4 | 1 2 3 4");
  EXPECT_THAT(of("DepthToSpace", kImage, {integer("blocksize", 2)}),
              HasSubstr("blocks of 2 do not fit"));
  EXPECT_THAT(of("SpaceToDepth", kImage, {integer("blocksize", INT64_MAX)}),
              HasSubstr("do not fit"));
  const auto axis = [](int64_t d) { return std::vector<Tensor>{list({d})}; };
  EXPECT_EQ(of("CumSum", kImage, {}, axis(2)), "1 2 5 10 3 1 2 6 | 4 6 3 4 12 14 7 8");
  EXPECT_EQ(of("CumSum", kImage, {integer("exclusive", 1), integer("reverse", 1)}, axis(-1)),
            "2 0 8 0 1 0 5 0 | 0 1 0 3 0 5 0 7");
  EXPECT_THAT(of("CumSum", kImage, {}, axis(0)), HasSubstr("sums over the images"));
  EXPECT_EQ(of("Tile", kSteps, {}, {list({1, 2, 1, 1})}, 8),
            "-2 -0.5 0 1.5 -2 -0.5 0 1.5 | 6 8 10 12");
  EXPECT_THAT(of("Tile", kSteps, {}, {list({2, 1, 1, 1})}, 8),
              HasSubstr("images after one another"));
  EXPECT_THAT(of("Tile", kSteps, {}, {list({1, INT64_MAX, 1, 1})}, 8), HasSubstr("too many parts"));
  EXPECT_EQ(of("LpNormalization", kImage, {integer("axis", 1)}),
            "0.316 0.894 0.97 0.848 0.949 0.447 -0.243 0.53 | -0.19 -0.894 0.442 -0.262 0.063 "
            "1.789 1.769 0.419");
}

// y is of x, its transposed t, a matrix m, and lists of sizes.
std::string of_matrices(const char* op, const std::vector<std::string>& in, int64_t numbers,
                        const char* equation = nullptr) {
  OnnxGraph g;
  g.input("x", {2, 2, 2});
  g.initializer(reals({1, 2, 3, 4}).reshape({2, 2}), "m");
  g.node("Transpose", {"x"}, {integers("perm", {0, 1, 3, 2})}, "t");
  Attributes attributes;
  if (equation) attributes.push_back(word("equation", equation));
  return result_of(g, g.node(op, in, attributes), kImage, numbers);
}

TEST(OnnxOperators, ProductsOfTwoValues) {
  const char* const square = "5 20 20 80 10 2 2 26 | 22 44 37 74 17 75 23 93";
  const char* const left = "9 18 19 38 1 11 5 23 | 10 14 14 20 26 30 38 44";
  EXPECT_EQ(of_matrices("MatMul", {"x", "t"}, 8), square);
  EXPECT_EQ(of_matrices("Einsum", {"x", "x"}, 8, "ncij, nckj -> ncik"), square);
  EXPECT_EQ(of_matrices("Einsum", {"x", "x"}, 4, "nchw,nkhw->nck"),
            "85 41 41 36 | 17 9 3 41 29 18 12 80");
  EXPECT_EQ(of_matrices("MatMul", {"m", "x"}, 8), left);
  EXPECT_EQ(of_matrices("Einsum", {"m", "x"}, 8, "ij,ncjk->ncik"), left);
  for (const char* equation : {"ncij,ncjk", "...ij,...jk->...ik", "nnij,ncij->nc", "ncij,ncij->ncx",
                               "ncij,ncjk->ncii", "ncij,ncjk->nc", "nci,ncij->nc"})
    EXPECT_THAT(of_matrices("Einsum", {"x", "t"}, 8, equation), HasSubstr("equation")) << equation;
  EXPECT_THAT(of_matrices("Einsum", {"x", "t"}, 8, "acij,bcij->ab"),
              HasSubstr("one image from another"));
}

TEST(OnnxOperators, WhatTheLogitsDoNotNeedIsNotLookedAt) {
  for (const bool needed : {false, true}) {
    OnnxGraph g;
    g.input("x", {1, 2, 2});
    g.node("NonZero", {"x"}, {}, "other");
    g.output("other", {1});
    const std::string y = needed ? g.node("Add", {"x", "other"}) : g.node("Relu", {"x"});
    EXPECT_THAT(result_of(g, y, kSteps, 4),
                HasSubstr(needed ? "NonZero \"NonZero_" : "0 0 0 1.5 | 0 0 0 4"));
  }
}

// Values are cut off where 8 bits end, and keep their gradient; constants are rounded.
TEST(OnnxOperators, NumbersOfEightBits) {
  const auto through = [](const char* second, double back, bool of_constant) {
    OnnxGraph g;
    g.input("x", {1, 2, 2});
    const std::string scale = g.initializer(Tensor::full({}, 0.004)),
                      other = g.initializer(Tensor::full({}, back));
    const std::string c = of_constant ? g.initializer(reals({0.0061f, 0.002f})) : "x";
    const std::string y = g.node(second, {g.node("QuantizeLinear", {c, scale}), other});
    return result_of(g, of_constant ? g.node("Mul", {"x", y}) : y, kSteps, 4);
  };
  EXPECT_EQ(through("DequantizeLinear", 0.004, false), "0 0 0 1.02 | 0 0 0 0");
  EXPECT_EQ(through("DequantizeLinear", 1, true), "-4 0 0 0 | 2 0 6 0");  // 1.525 is 2, 0.5 is 0
  EXPECT_THAT(through("DequantizeLinear", 0.005, false), HasSubstr("the same scale"));
  EXPECT_THAT(through("Add", 1, false), HasSubstr("numbers of 8 bits"));
}

// The dimension of the images is merged with others and moved, but its numbers stay in order.
TEST(OnnxOperators, ImagesAmongOtherDimensions) {
  const auto through = [](const Integers& sizes, const Integers& order, const Integers& back) {
    OnnxGraph g;
    g.input("x", {2, 2, 2});
    const std::string y = g.node("Reshape", {"x", g.initializer(list(sizes))});
    const std::string z = g.node("Softplus", {g.node("Transpose", {y}, {integers("perm", order)})});
    return result_of(g, g.node("Reshape", {z, g.initializer(list(back))}), kImage, 8);
  };
  const std::string moved = through({-1, 2, 2}, {1, 0, 2}, {2, -1, 2, 2});
  EXPECT_THAT(moved, HasSubstr("a classifier's is [N, classes]"));  // it is [2,N,2,2]
  EXPECT_EQ(through({-1, 2}, {0, 1}, {-1, 8}), of("Softplus", kImage));
  EXPECT_THAT(through({-1, 2, 2}, {1, 0, 2}, {-1, 2, 2, 2}), HasSubstr("behind something else"));
  EXPECT_THAT(through({-1, 2, 2}, {1, 0, 2}, {2, 2, -1, 2}), HasSubstr("behind something else"));
  EXPECT_THAT(through({-1, 3}, {0, 1}, {-1, 8}), HasSubstr("do not fit images of 2x2"));
}

// [N,C,W], as attention to channels has it.
TEST(OnnxOperators, ConvolutionsAndPoolsOfLines) {
  const auto line = [](const char* op, const Attributes& attributes, const Tensor& weight,
                       int64_t numbers) {
    OnnxGraph g;
    g.input("x", {1, 2, 2});
    std::vector<std::string> in{g.node("Reshape", {"x", g.initializer(list({0, 1, -1}))})};
    if (weight.defined()) in.push_back(g.initializer(weight));
    return result_of(g, g.node(op, in, attributes), {{1, 2, 2}, {1, 2, 4, 8}}, numbers);
  };
  const Tensor w = reals({2, 1, -1}).reshape({1, 1, 3});
  EXPECT_EQ(line("Conv", {integers("pads", {1, 1})}, w, 4), "-1 0 0 16 | 5 7 9 1");
  EXPECT_EQ(line("MaxPool", {integers("kernel_shape", {3}), integers("pads", {1, 0})}, {}, 3),
            "2 4 8 | 0 1 2 3");
  EXPECT_THAT(line("Conv", {integers("pads", {1, 1, 1, 1, 1, 1})}, w, 4), HasSubstr("pads"));
  EXPECT_THAT(line("Conv", {}, w.reshape({1, 1, 1, 3}), 4), HasSubstr("number of dimensions"));
}

}  // namespace
}  // namespace mtcki

// Small networks trained for ten steps against PyTorch's numbers (tests/data/make/golden_train.py):
// first-step gradients by name, ten losses, running statistics, eval output. In f64 the agreement
// is to rounding, in f32 it covers the fast kernels.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>

#include "autograd/functions.h"
#include "data/formats/state_file.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"

namespace mtcki {
namespace {

constexpr int kSteps = 10;
constexpr int64_t kBatch = 8;

// [0, 1): 24 bits of the MurmurHash3 finaliser of index and stream, as the script has it.
double hashed(uint32_t index, uint32_t stream) {
  uint32_t x = index + stream * 0x9E3779B9u;
  x ^= x >> 16;
  x *= 0x85EBCA6Bu;
  x ^= x >> 13;
  x *= 0xC2B2AE35u;
  x ^= x >> 16;
  return static_cast<double>(x >> 8) / 16777216.0;
}

// low + (high - low) u
Tensor hashed_tensor(const Shape& shape, uint32_t stream, double low, double high, DType dtype) {
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = low + (high - low) * hashed(static_cast<uint32_t>(i), stream);
  return Tensor::from(values, shape).to(dtype);
}

bool ends_with(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() &&
         text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

void fill(nn::Module& module, DType dtype) {
  uint32_t stream = 0;
  for (auto& [name, p] : module.named_parameters()) {
    ++stream;
    const Shape& shape = p->shape();
    double center = 0.0, radius = 0.1;
    if (shape.rank() > 1) {
      radius = std::sqrt(6.0 / static_cast<double>(shape.numel() / shape[0]));
    } else if (ends_with(name, "weight")) {
      center = 1.0;
      radius = 0.2;
    }
    Tensor values = p->data();
    values.copy_(hashed_tensor(shape, stream, center - radius, center + radius, dtype));
  }
}

std::vector<double> spaced(const Tensor& t, int64_t count) {
  const std::vector<double> all = t.to_vector<double>();
  const int64_t n = static_cast<int64_t>(all.size()), used = std::min(count, n);
  std::vector<double> out;
  for (int64_t j = 0; j < used; ++j) out.push_back(all[static_cast<size_t>(j * n / used)]);
  return out;
}

// L2 norm, then eight elements.
std::vector<double> digest(const Tensor& t) {
  double squares = 0.0;
  for (const double v : t.to_vector<double>()) squares += v * v;
  std::vector<double> out = {std::sqrt(squares)};
  for (const double v : spaced(t, 8)) out.push_back(v);
  return out;
}

const std::map<std::string, Tensor>& golden() {
  static const std::map<std::string, Tensor> table = [] {
    const auto file =
        data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/golden/train.safetensors");
    return std::map<std::string, Tensor>(file.tensors.begin(), file.tensors.end());
  }();
  return table;
}

struct Case {
  std::string name;  // of the classifier or generator
  bool generator;
  int64_t channels, size;
  DType dtype;
  std::string key() const { return generator ? name + std::to_string(size) : name; }
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.key(); }

std::string test_name(const testing::TestParamInfo<Case>& info) {
  std::string text = info.param.key() + "_" + name_of(info.param.dtype);
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

class GoldenTrain : public testing::TestWithParam<Case> {
 protected:
  // |got - want| <= tolerance * (the tensor's size as the golden file knows it). Gradients of biases
  // before a batch norm are rounding noise around zero: sizes below 0.01 count as that.
  void expect_close(const std::string& key, const std::vector<double>& got, double tolerance) {
    const auto it = golden().find(GetParam().key() + "/" + key);
    ASSERT_NE(it, golden().end()) << key;
    ++compared_;
    const std::vector<double> want = it->second.to_vector<double>();
    ASSERT_EQ(got.size(), want.size()) << key;
    double scale = 0.01;
    for (const double v : want) scale = std::max(scale, std::abs(v));
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i], want[i], tolerance * scale) << key << " [" << i << "]";
  }
  size_t compared_ = 0;
};

TEST_P(GoldenTrain, GradientsLossesAndStatisticsEqualPyTorch) {
  const Case& c = GetParam();
  const bool exact = c.dtype == DType::f64;
  nn::Init init(1);
  init.dtype = c.dtype;
  std::unique_ptr<nn::Module> model;
  Tensor input;
  if (c.generator) {
    model = nn::make_generator({c.name, 16, 8, c.channels, c.size}, init);
    input = hashed_tensor({kBatch, 16}, 1000, -1, 1, c.dtype);
  } else {
    model = nn::make_classifier({c.name, c.channels, c.size, 10}, init);
    input = hashed_tensor({kBatch, c.channels, c.size, c.size}, 1000, -1, 1, c.dtype);
  }
  fill(*model, c.dtype);
  const Tensor target = hashed_tensor({kBatch, c.channels, c.size, c.size}, 1001, 0, 1, c.dtype);
  std::vector<int64_t> classes;
  for (int64_t i = 0; i < kBatch; ++i) classes.push_back((7 * i + 3) % 10);
  const Tensor labels = Tensor::from(classes, {kBatch});

  std::unique_ptr<optim::Optimizer> optimizer;
  if (c.generator) {
    optim::AdamOptions o;
    o.lr = 1e-2;
    o.beta1 = 0.5;
    optimizer = optim::make_adam({optim::group_of(*model)}, o);
  } else {
    optim::SgdOptions o;
    o.lr = 0.01;
    o.momentum = 0.9;
    o.weight_decay = 5e-4;
    optimizer = optim::make_sgd({optim::group_of(*model)}, o);
  }

  std::vector<double> losses;
  for (int step = 0; step < kSteps; ++step) {
    optimizer->zero_grad();
    const Variable y = (*model)(input);
    const Variable loss =
        c.generator ? mean(square(sub(y, Variable(target)))) : cross_entropy(y, labels);
    loss.backward();
    losses.push_back(loss.item());
    if (step == 0)
      for (auto& [name, p] : model->named_parameters()) {
        ASSERT_TRUE(p->grad().defined()) << name;
        expect_close("grad/" + name, digest(p->grad()), exact ? 1e-9 : 2e-4);
      }
    optimizer->step();
  }
  expect_close("loss", losses, exact ? 1e-9 : 1e-3);
  for (auto& [name, b] : model->named_buffers())
    if (b->rank() > 0) expect_close("buffer/" + name, digest(*b), exact ? 1e-8 : 5e-3);
  model->eval();
  const NoGradScope no_grad;
  expect_close("eval", spaced((*model)(input).data(), 64), exact ? 1e-8 : 1e-2);

  size_t stored = 0;
  for (const auto& entry : golden()) stored += entry.first.rfind(c.key() + "/", 0) == 0;
  EXPECT_EQ(compared_, stored) << "names in the file that the network does not have";
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const DType d : {DType::f64, DType::f32}) {
    out.push_back({"resnet8", false, 3, 16, d});
    out.push_back({"resnet8_a", false, 1, 28, d});
    out.push_back({"wrn10_1", false, 3, 16, d});
    out.push_back({"wrn10_2", false, 3, 16, d});
    out.push_back({"vgg8_w0.125", false, 3, 16, d});
    out.push_back({"cmi", true, 3, 16, d});
    out.push_back({"large", true, 3, 12, d});
    out.push_back({"dcgan", true, 3, 32, d});
    out.push_back({"dcgan", true, 3, 28, d});
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(PyTorch, GoldenTrain, testing::ValuesIn(cases()), test_name);

}  // namespace
}  // namespace mtcki

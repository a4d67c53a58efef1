#include "nn/init.h"
#include "nn/models/model.h"
#include "tensor/nearest_name.h"
#include "tensor/op_error.h"

namespace mtcki::nn {

namespace {

std::unique_ptr<Conv2d> conv3x3(int64_t in, int64_t out, bool bias, Init& init) {
  return std::make_unique<Conv2d>(in, out, 3, Conv2dOptions(1, 1), bias, init);
}

std::unique_ptr<BatchNorm2d> batch_norm(int64_t channels, const Init& init) {
  return std::make_unique<BatchNorm2d>(channels, 1e-5, 0.1, init.dtype);
}

// sigmoid(x) in f32: a bf16 image would have no more than 8 bits a pixel.
Variable image_of(const Variable& x) {
  return sigmoid(x.data().dtype() == DType::bf16 ? cast(x, DType::f32) : x);
}

// The map that a projection begins with, small still, in the layout of the layers that follow.
Variable first_map(const Variable& projected, int64_t channels, int64_t size) {
  const Variable map = reshape(projected, {projected.size(0), channels, size, size});
  return to_layout(map, preferred_layout(map.data().device(), map.data().dtype(), channels));
}

const Activation kLeaky = Activation::leaky_relu(0.2);

// The convolutions of a generator, in parts that Generator::part() names.
class GeneratorBody : public Module {
 public:
  virtual int64_t maps() const = 0;
  virtual Variable part(int64_t number, const Variable& x) = 0;

 protected:
  Variable forward(const Variable& x) override {
    Variable h = part(0, x);
    for (int64_t i = 1; i <= maps(); ++i) h = part(i, h);
    return h;
  }
};

// z -> Linear -> [C0, s, s], BN, nearest x2, conv BN leaky, nearest x2, conv BN leaky, conv
// sigmoid, with s = size/4. The checkpoints count activations and upsamplings in the indices.
class UpsamplingBody : public GeneratorBody {
 public:
  UpsamplingBody(int64_t start, int64_t ngf, int64_t channels, Init& init)
      : bn0_(add("0", batch_norm(start, init))),
        conv2_(add("2", conv3x3(start, 2 * ngf, false, init))),
        bn3_(add("3", batch_norm(2 * ngf, init))),
        conv6_(add("6", conv3x3(2 * ngf, ngf, false, init))),
        bn7_(add("7", batch_norm(ngf, init))),
        conv9_(add("9", conv3x3(ngf, channels, true, init))) {}

  int64_t maps() const override { return 3; }
  Variable part(int64_t number, const Variable& x) override {
    if (number == 0) return bn0_(x);
    if (number == 1) return bn3_(conv2_(twice(x)), kLeaky);
    if (number == 2) return bn7_(conv6_(twice(x)), kLeaky);
    return image_of(conv9_(x));
  }

 private:
  static Variable twice(const Variable& x) {
    return upsample_nearest2d(x, 2 * x.size(2), 2 * x.size(3));
  }

  BatchNorm2d& bn0_;
  Conv2d& conv2_;
  BatchNorm2d& bn3_;
  Conv2d& conv6_;
  BatchNorm2d& bn7_;
  Conv2d& conv9_;
};

class UpsamplingGenerator : public Generator {
 public:
  // start: channels of the first map (2 ngf in CMI's generator, 4 ngf in the large one).
  UpsamplingGenerator(const GeneratorSpec& spec, int64_t start, Init& init)
      : nz_(spec.nz),
        start_(start),
        size_(spec.image_size / 4),
        l1_(add("l1", std::make_unique<Sequential>())),
        body_(add("conv_blocks",
                  std::make_unique<UpsamplingBody>(start, spec.ngf, spec.channels, init))) {
    l1_.add("0", std::make_unique<Linear>(spec.nz, start * size_ * size_, true, init));
  }
  std::string kind() const override { return "Generator"; }
  int64_t nz() const override { return nz_; }
  int64_t maps() const override { return body_.maps(); }
  Variable part(int64_t number, const Variable& x) override {
    return body_.part(number, number == 0 ? first_map(l1_(x), start_, size_) : x);
  }

 protected:
  Variable forward(const Variable& z) override { return body_(first_map(l1_(z), start_, size_)); }

 private:
  int64_t nz_, start_, size_;
  Sequential& l1_;
  UpsamplingBody& body_;
};

// z -> Linear -> [8 ngf, s, s], BN, then (ConvTranspose 4x4 stride 2 - BN - leaky) per doubling,
// conv3x3, sigmoid. Four doublings from s = size/16 with widths 8, 4, 2, 1, 1 (times ngf); sizes
// that 16 does not divide (28) take two from s = size/4 with widths 8, 2, 1.
class DcganBody : public GeneratorBody {
 public:
  DcganBody(const std::vector<int64_t>& widths, int64_t channels, Init& init)
      : bn0_(add("0", batch_norm(widths.front(), init))) {
    size_t index = 1;
    for (size_t i = 1; i < widths.size(); ++i, index += 3) {
      Stage stage;
      stage.conv = &add(std::to_string(index), std::make_unique<ConvTranspose2d>(
                                                   widths[i - 1], widths[i], 4,
                                                   ConvTranspose2dOptions(2, 1), false, init));
      stage.bn = &add(std::to_string(index + 1), batch_norm(widths[i], init));
      stages_.push_back(stage);
    }
    last_ = &add(std::to_string(index), conv3x3(widths.back(), channels, true, init));
  }

  int64_t maps() const override { return std::ssize(stages_) + 1; }
  Variable part(int64_t number, const Variable& x) override {
    if (number == 0) return bn0_(x);
    if (number == maps()) return image_of((*last_)(x));
    const Stage& stage = stages_[static_cast<size_t>(number) - 1];
    return (*stage.bn)((*stage.conv)(x), kLeaky);
  }

 private:
  struct Stage {
    ConvTranspose2d* conv = nullptr;
    BatchNorm2d* bn = nullptr;
  };
  BatchNorm2d& bn0_;
  std::vector<Stage> stages_;
  Conv2d* last_ = nullptr;
};

class DcganGenerator : public Generator {
 public:
  DcganGenerator(const GeneratorSpec& spec, Init& init)
      : nz_(spec.nz),
        size_(spec.image_size / (deep(spec) ? 16 : 4)),
        width_(8 * spec.ngf),
        project_(add("project", std::make_unique<Sequential>())),
        body_(add("main", std::make_unique<DcganBody>(widths(spec), spec.channels, init))) {
    // Index 0 of the checkpoints is a Flatten.
    project_.add("1", std::make_unique<Linear>(spec.nz, width_ * size_ * size_, true, init));
  }
  int64_t nz() const override { return nz_; }
  int64_t maps() const override { return body_.maps(); }
  Variable part(int64_t number, const Variable& x) override {
    return body_.part(number, number == 0 ? first_map(project_(x), width_, size_) : x);
  }

 protected:
  Variable forward(const Variable& z) override {
    return body_(first_map(project_(z), width_, size_));
  }

 private:
  static bool deep(const GeneratorSpec& spec) { return spec.image_size % 16 == 0; }
  static std::vector<int64_t> widths(const GeneratorSpec& spec) {
    const int64_t n = spec.ngf;
    if (deep(spec)) return {8 * n, 4 * n, 2 * n, n, n};
    return {8 * n, 2 * n, n};
  }

  int64_t nz_, size_, width_;
  Sequential& project_;
  DcganBody& body_;
};

}  // namespace

// Every tensor has its own position; 4096 of them fit between two steps of the caller.
void Generator::reset(const Rng& rng) {
  Init init;
  init.rng = rng.at(rng.step << 12);
  for (auto& [path, module] : named_modules()) module->reset_parameters(init);
}

Variable Generator::decode(int64_t map, Variable x) {
  for (int64_t i = map + 1; i <= maps(); ++i) x = part(i, x);
  return x;
}

namespace {

using Make = std::unique_ptr<Generator> (*)(const GeneratorSpec& spec, Init& init);
struct GeneratorRow {
  const char* name;
  Make make;
};
constexpr GeneratorRow kGenerators[] = {
    {"cmi",
     [](const GeneratorSpec& s, Init& init) -> std::unique_ptr<Generator> {
       return std::make_unique<UpsamplingGenerator>(s, 2 * s.ngf, init);
     }},
    {"large",
     [](const GeneratorSpec& s, Init& init) -> std::unique_ptr<Generator> {
       return std::make_unique<UpsamplingGenerator>(s, 4 * s.ngf, init);
     }},
    {"dcgan",
     [](const GeneratorSpec& s, Init& init) -> std::unique_ptr<Generator> {
       return std::make_unique<DcganGenerator>(s, init);
     }},
};

}  // namespace

const std::vector<std::string>& generator_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const GeneratorRow& row : kGenerators) out.emplace_back(row.name);
    return out;
  }();
  return names;
}

std::unique_ptr<Generator> make_generator(const GeneratorSpec& spec, Init& init) {
  if (spec.nz < 1 || spec.ngf < 1 || spec.channels < 1 || spec.image_size < 8 ||
      spec.image_size % 4 != 0)
    throw UsageError(str("generator ", spec.name,
                         ": needs nz, ngf and channels of at least 1 and "
                         "an image size that 4 divides; got nz ",
                         spec.nz, ", ngf ", spec.ngf, ", channels ", spec.channels, ", size ",
                         spec.image_size));
  for (const GeneratorRow& row : kGenerators)
    if (row.name == spec.name) return row.make(spec, init);
  std::string all;
  for (const std::string& name : generator_names()) all += (all.empty() ? "" : ", ") + name;
  throw UsageError(str("unknown generator \"", spec.name, "\"",
                       did_you_mean(spec.name, generator_names()), " (known: ", all, ")"));
}

}  // namespace mtcki::nn
